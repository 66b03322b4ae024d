from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.scoring.answer_spans import answer_spans, holds_answer
from support import text_reference as reference


def places(text: str | None, answers: list[str | None]) -> list[str] | None:
    """What is marked, cut out as JavaScript does."""
    listed = pl.Series([answers], dtype=pl.List(pl.String))
    (spans,) = answer_spans(pl.Series([text], dtype=pl.String), listed)
    units = (text or "").encode("utf-16-le")
    return spans and [units[2 * a : 2 * b].decode("utf-16-le") for a, b in spans]


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("“Paris” is not Parisian, Paris is.", ["Paris"], ["Paris", "Paris"]),
        ("中国的首都是北京。北京！", ["北京", "首都"], ["首都", "北京", "北京"]),
        ("それはｴﾍﾞﾚｽﾄ山です", ["エベレスト山"], ["ｴﾍﾞﾚｽﾄ山"]),
        ("คือน้ำครับ", ["น้ำ"], ["น้ำ"]),
        ("दिल्ली, हिन्दी।", ["हिन्दी"], ["हिन्दी"]),
        ("He lived (1990–1995) in the U.S. army", ["1995", "U.S."], ["1995", "U.S"]),
        ("the 1990–1995 war", ["1990-1995"], ["1990–1995"]),
        ("😀 Rock ’n’ Roll 😀", ["rock 'n' roll"], ["Rock ’n’ Roll"]),
        ("cafe\u0301 and CAFÉ\u200b!", ["café"], ["cafe\u0301", "CAFÉ"]),
        ("the Art of the War", ["Art of War"], ["Art of the War"]),
        ("New York City", ["New York", "York City"], ["New York City"]),
        ("no no no", ["no no"], ["no no"]),
        ("x and y", ["y", None, "?", "x"], ["x", "y"]),
        ("South Korea", ["K"], None),
        (None, ["x"], None),
        ("The", ["the"], []),
    ],
)
def test_places(text: str | None, answers: list[str | None], expected: list[str] | None) -> None:
    assert places(text, answers) == expected


def test_rows_do_not_mix() -> None:
    texts = pl.Series(["a b", "c", "b a"])
    answers = pl.Series([["b"], ["b"], ["b"]])
    assert answer_spans(texts, answers) == [[(2, 3)], None, [(0, 1)]]
    assert answer_spans(texts.head(0), answers.head(0)) == []
    assert holds_answer(texts, answers).to_list() == [True, False, True]
    assert holds_answer(texts.head(0), answers.head(0)).to_list() == []


def test_a_text_with_a_separator_is_read_both_ways_beside_one_without() -> None:
    texts = pl.Series(["1990\N{EN DASH}1995", "in 1995"])
    answers = pl.Series([["1995", "1990-1995"], ["1995"]])
    assert answer_spans(texts, answers) == [[(0, 9)], [(3, 7)]]


PIECES = st.sampled_from(
    "a the Paris 1990 U.S. 北 京 ー ｶﾞ กำ ก่ ﬁ ½ 😀 हि İ - – 。 ， ’ “ \u0301 \u200b … (".split()
    + [" ", " ", "\n"]
)
TEXT = st.lists(PIECES, max_size=10).map("".join)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(TEXT, TEXT.filter(reference.words))
def test_what_is_marked_holds_the_answer(text: str, answer: str) -> None:
    found = places(text, [answer])
    assert (found is not None) == reference.stands_in(answer, text)
    listed = pl.Series([[answer]], dtype=pl.List(pl.String))
    assert holds_answer(pl.Series([text]), listed).to_list() == [found is not None]
    for marked in found or []:
        assert reference.stands_in(answer, marked)

from __future__ import annotations

import re
import unicodedata

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.metrics import METRICS
from support import text_reference as reference

SCHEMA = {"prediction": pl.String, "answers": pl.List(pl.String)}


def scores(prediction: str | None, answers: list[str | None] | None) -> dict[str, float | None]:
    frame = pl.DataFrame({"prediction": [prediction], "answers": [answers]}, schema=SCHEMA)
    return score_answers(frame).select(*METRICS).row(0, named=True)


@pytest.mark.parametrize(
    ("prediction", "answers", "recall", "exact", "f1", "contains", "substring"),
    [
        ("Paris", ["Paris"], 1, 1, 1, 1, 1),
        ("The city of Paris.", ["paris"], 1, 0, 0.5, 1, 1),  # "city of paris": 1 of 3 tokens
        ("the Beatles!", ["Beatles"], 1, 1, 1, 1, 1),
        ("New York", ["New York City"], 2 / 3, 0, 0.8, 0, 0),
        ("Rome", ["Paris"], 0, 0, 0, 0, 0),
        ("South Korea", ["K"], 0, 0, 0, 0, 0),
        ("June 4, 1989", ["4 June 1989", "1989"], 1, 0, 1, 1, 0.5),
        ("1989", ["1990", "1989"], 1, 1, 1, 1, 0.5),
        ("1989", ["1989", "1989.", "1990"], 1, 1, 1, 1, 0.5),  # "1989." is no answer of its own
        ("The", ["a"], 0, 0, 0, 0, 0),
        ("grade A", ["A"], 1, 0, 0, 0, 0),  # SQuAD drops the article from "grade a"
        ("A", ["A"], 1, 1, 1, 1, 1),
        ("it's", ["its"], 0, 1, 1, 1, 1),
        ("no no no", ["no"], 1, 0, 0.5, 1, 1),  # tokens are a multiset in f1, a set in recall
        ("no no", ["no no yes"], 0.5, 0, 0.8, 0, 0),  # the overlap of multisets is 2
        ("caf\u00e9", ["CAF\u00c9"], 1, 1, 1, 1, 1),
        ("", ["Paris"], 0, 0, 0, 0, 0),
        (None, ["Paris"], 0, 0, 0, 0, 0),
        ("Paris", [None, "?!", "Paris"], 1, 1, 1, 1, 1),
    ],
)
def test_worked_by_hand(
    prediction: str | None,
    answers: list[str | None],
    recall: float,
    exact: float,
    f1: float,
    contains: float,
    substring: float,
) -> None:
    expected = dict(zip(METRICS, (recall, exact, f1, contains, substring), strict=True))
    assert scores(prediction, answers) == pytest.approx(expected)


@pytest.mark.parametrize("answers", [None, [], [None], [""], ["?!", "  "]])
def test_no_usable_answer_is_unscored(answers: list[str | None] | None) -> None:
    assert scores("Paris", answers) == dict.fromkeys(METRICS)


def test_rows_and_columns_keep_their_places() -> None:
    frame = pl.DataFrame(
        {
            "row": ["x", "y", "z"],
            "prediction": ["b", "a b", None],
            "answers": [["b"], [], ["c", "b"]],
        }
    )
    scored = score_answers(frame)
    assert scored.columns == ["row", "prediction", "answers", *METRICS]
    assert scored.drop(*METRICS).equals(frame)
    assert scored["token_recall"].to_list() == [1.0, None, 0.0]
    assert set(scored.select(*METRICS).dtypes) == {pl.Float64}


def test_threads_keep_the_order_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = [f"w{n} v{n % 3}" for n in range(20)]
    answers = [[f"w{n}", "v0"] if n % 4 else [] for n in range(20)]
    frame = pl.DataFrame({"prediction": predictions, "answers": answers}, schema=SCHEMA)
    monkeypatch.setattr("slm_vllm.scoring.answers._SLICE", 3)
    expected = [scores(*row) for row in zip(predictions, answers, strict=True)]
    assert score_answers(frame).select(*METRICS).to_dicts() == expected


@pytest.mark.parametrize("answers", [[None], [[]]])
def test_columns_without_a_type_of_their_own_are_unscored(answers: list[object]) -> None:
    scored = score_answers(pl.DataFrame({"prediction": [None], "answers": answers}))
    assert scored["token_recall"].to_list() == [None]


def test_no_rows() -> None:
    scored = score_answers(pl.DataFrame(schema=SCHEMA))
    assert scored.height == 0
    assert set(METRICS) <= set(scored.columns)


# Code points that this Python's tables do not know may be known to Rust's.
SIGNS = st.characters(exclude_categories=("Cs", "Cn"))
PIECES = st.one_of(
    st.sampled_from(
        ["a", "an", "the", "The", "A", "Paris", "paris,", "1989", "x", "\u00b2", "\u0301", "\u03a3"]
    ),
    st.sampled_from(
        [" ", "  ", "\t", "\u00a0", "\x1c", "-", "_", "'", "\u2019", "\u2013", "\u0130"]
    ),
    st.sampled_from(
        ["\u5317\u4eac", "\u3002", "\uff0c", "\u0e19\u0e49\u0e33", "\u30fc", "\u0939\u093f"]
    ),
    st.sampled_from(
        ["\u200b", "\u00ad", "\ufe0f", "\u00b4", "\u2122", "I\u0307", "J\u030c", "\u1e9e"]
    ),
    st.text(SIGNS, max_size=4),
)
TEXTS = st.lists(PIECES, max_size=10).map("".join)
ROWS = st.lists(
    st.tuples(st.none() | TEXTS, st.lists(st.none() | TEXTS, max_size=4)), min_size=1, max_size=8
)


def scored(rows: list[tuple[str | None, list[str | None]]]) -> list[dict[str, float | None]]:
    frame = pl.DataFrame(
        {"prediction": [row[0] for row in rows], "answers": [row[1] for row in rows]},
        schema=SCHEMA,
    )
    return score_answers(frame).select(*METRICS).to_dicts()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(ROWS)
@example([("A\u0301 \u03a3\u0391\u03a3", ["a\u0301", "\u03c3\u03b1\u03c2"]), (None, []), ("x", [])])
@example([("the\u0301a\u0301b the an a\u00b2", ["\u0301 \u0301b a\u00b2"])])
@example([("", ["the"]), ("the", ["a"]), ("an apple a day", ["apple day", "an", "app"])])
@example([("", ["_"]), ("x", ["_"]), ("_", ["_"])])
def test_every_metric_by_definition(rows: list[tuple[str | None, list[str | None]]]) -> None:
    for (text, answers), row in zip(rows, scored(rows), strict=True):
        prediction = text or ""
        usable = [answer for answer in answers if answer and reference.words(answer)]
        if not usable:
            assert set(row.values()) == {None}
            continue
        said = set(reference.words(prediction))
        recalls = [
            len(said & wanted) / len(wanted) for wanted in map(set, map(reference.words, usable))
        ]
        assert row["token_recall"] == pytest.approx(max(recalls))
        form = reference.squad(prediction)
        assert row["exact_match"] == float(bool(form) and form in map(reference.squad, usable))
        assert row["f1"] == pytest.approx(max(reference.f1(prediction, one) for one in usable))
        found = {
            tuple(reference.squad(one)): reference.stands_in(one, prediction) for one in usable
        }
        assert row["contains"] == float(any(found.values()))
        assert row["substring_recall"] == pytest.approx(sum(found.values()) / len(found))


def is_old_text(text: str) -> bool:
    """NFKC, scripts with blanks, no marks, nothing that is not shown."""
    return unicodedata.normalize("NFKC", text) == text and not any(
        reference.is_mark(s)
        or ord(s) in reference.UNSEEN
        or reference.is_unspaced(s)
        or s == "\u0130"  # small, it is two characters, the second one a mark
        for s in text
    )


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS.filter(is_old_text), min_size=2, max_size=8))
@example(["\u03a3\u0391\u03a3 o'clock", "\u03c3\u03b1\u03c2", "stra\u00dfe \u1e9e", "STRASSE"])
def test_token_recall_is_what_it_was(texts: list[str]) -> None:
    def tokens(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))

    prediction, *answers = texts
    recalls = [len(tokens(prediction) & tokens(a)) / len(tokens(a)) for a in answers if tokens(a)]
    assert scores(prediction, list(answers))["token_recall"] == (
        pytest.approx(max(recalls)) if recalls else None
    )

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.config.schema import PassageConfig
from slm_vllm.errors import DataError
from slm_vllm.retrieval.chunking import MAX_WORD_BYTES, cut_windows
from slm_vllm.retrieval.passages import PASSAGE_SCHEMA, DocumentFilter, iter_passages

SPACED = st.text(st.sampled_from("abcé \n\t.Жñ😀"), max_size=80)
ANY = st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace").decode())


def frame(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["document_id", "title", "text"], orient="row")


def plain_windows(text: str, size: int, stride: int) -> list[list[str]]:
    words = text.split()
    found = []
    for low in range(0, len(words), stride):
        found.append(words[low : low + size])
        if low + size >= len(words):
            break
    return found


def build_passages(documents: list[pl.DataFrame], config: PassageConfig) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=PASSAGE_SCHEMA), *iter_passages(documents, config)])


@given(st.lists(SPACED, max_size=5), st.integers(1, 7), st.data())
def test_windows_are_those_of_a_plain_loop(
    texts: list[str], size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, size))
    windows = cut_windows(texts, PassageConfig(size=size, stride=stride))
    expected = [(i, w) for i, t in enumerate(texts) for w in plain_windows(t, size, stride)]
    found = [
        (i, w.split()) for i, w in zip(windows.text_index.tolist(), windows.texts, strict=True)
    ]
    assert found == expected


@given(st.lists(ANY, max_size=5), st.integers(1, 20), st.booleans(), st.data())
def test_every_window_lies_where_its_offset_says(
    texts: list[str], size: int, sentences: bool, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, size))
    config = PassageConfig(size=size, stride=stride, sentences=sentences)
    windows = cut_windows(texts, config)
    for at, piece, start in zip(windows.text_index, windows.texts, windows.starts, strict=True):
        assert texts[at][start : start + len(piece)] == piece
        assert piece


@given(ANY, st.integers(1, 20), st.booleans())
def test_no_character_is_lost(text: str, size: int, sentences: bool) -> None:
    windows = cut_windows([text], PassageConfig(size=size, stride=size, sentences=sentences))
    kept = "".join(c for w in windows.texts for c in w if c > " ")
    assert kept == "".join(c for c in text if c > " ")


def test_sentences_end_windows_where_one_is_near() -> None:
    text = "one two three four five six seven. eight nine ten eleven twelve"
    cut = cut_windows([text], PassageConfig(size=8, stride=8, sentences=True))
    assert cut.texts == ["one two three four five six seven.", "eight nine ten eleven twelve"]
    far = cut_windows(["one. " + "word " * 20], PassageConfig(size=8, stride=8, sentences=True))
    assert len(far.texts[0].split()) == 8


def test_chinese_is_cut_by_characters() -> None:
    cut = cut_windows(["北京是中华人民共和国的首都"], PassageConfig(size=5, stride=5))
    assert cut.texts == ["北京是中华", "人民共和国", "的首都"]


def test_text_without_blanks_does_not_make_an_endless_passage() -> None:
    cut = cut_windows(["é" * 5000], PassageConfig(size=2, stride=2))
    assert "".join(cut.texts) == "é" * 5000
    assert max(len(t.encode()) for t in cut.texts) <= 2 * MAX_WORD_BYTES + 2


def test_ids_lead_back_to_document_and_offset() -> None:
    text = "alpha beta gamma delta epsilon"
    built = build_passages([frame(("d", "T", text))], PassageConfig(size=2, stride=2))
    assert built["passage_id"].to_list() == ["d:0", "d:11", "d:23"]
    for row in built.iter_rows(named=True):
        assert text[row["start"] :].startswith(row["text"])
        assert row["title"] == "T"


def test_the_same_document_in_several_rows_is_stored_once() -> None:
    seen = DocumentFilter()
    rows = [frame(("a", "T", "same text"), ("a", "T", "same text")), frame(("b", "T", "same text"))]
    built = pl.concat(iter_passages(rows, PassageConfig(), seen))
    assert built["document_id"].to_list() == ["a"]
    assert seen.aliases == {"b": "a"}
    assert (seen.n_seen, seen.n_kept) == (3, 1)


def test_two_texts_under_one_id_are_both_kept() -> None:
    built = build_passages([frame(("a", "T", "first"), ("a", "T", "second"))], PassageConfig())
    assert built["document_id"].to_list() == ["a", "a"]
    assert built["passage_id"].n_unique() == 2


def test_title_decides_too() -> None:
    built = build_passages([frame(("a", "T", "text"), ("b", "U", "text"))], PassageConfig())
    assert built.height == 2


def test_corpus_hash_covers_content_order_and_ids() -> None:
    def hashed(*rows: tuple[str, str, str]) -> str:
        seen = DocumentFilter()
        list(iter_passages([frame(*rows)], PassageConfig(), seen))
        return seen.corpus_hash

    one, two = ("a", "T", "x"), ("b", "T", "y")
    assert hashed(one, two) == hashed(one, two)
    others = [
        hashed(two, one),
        hashed(one),
        hashed(("z", "T", "x"), two),
        hashed(one, ("b", "", "y")),
    ]
    assert hashed(one, two) not in others


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="'text'"):
        build_passages([pl.DataFrame({"document_id": ["a"], "title": ["b"]})], PassageConfig())


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["", " ", "\n"]), min_size=1, max_size=4))
def test_empty_documents_give_no_passages(texts: list[str]) -> None:
    rows = frame(*[(str(i), "", t) for i, t in enumerate(texts)])
    assert build_passages([rows], PassageConfig()).height == 0

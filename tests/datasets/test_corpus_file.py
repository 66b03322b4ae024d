"""Corpora of their own: every usual form gives the same documents, every bad one says why."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from slm_vllm.datasets.corpus_file import CorpusFile
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.types import RejectedRow

DOCUMENTS = [
    ("12", "Aaron", 'The "prophet", brother of Moses.'),
    ("13", "Ελλάδα", "Line one.\nLine two, 国立."),
    ("a b", "Zed", "0"),
]


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def beir(folder: Path) -> Path:
    rows = [{"_id": i, "title": title, "text": text} for i, title, text in DOCUMENTS]
    (folder / "corpus.jsonl").write_text(lines(rows))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "who"}\n')
    return folder


def dpr(folder: Path) -> Path:
    rows = [f"{i}\t{quoted(text)}\t{quoted(title)}\n" for i, title, text in DOCUMENTS]
    path = folder / "psgs_w100.tsv.gz"
    path.write_bytes(gzip.compress(("id\ttext\ttitle\n" + "".join(rows)).encode()))
    return path


def contents(folder: Path) -> Path:
    rows = [{"id": i, "contents": f'"{title}"\n{text}'} for i, title, text in DOCUMENTS]
    path = folder / "wiki.jsonl"
    path.write_text(lines(rows))
    return path


def table(folder: Path) -> Path:
    path = folder / "documents.parquet"
    pl.DataFrame(DOCUMENTS, schema=["docid", "title", "text"], orient="row").write_parquet(path)
    return path


def shards(folder: Path) -> Path:
    for number, (i, title, text) in enumerate(DOCUMENTS):
        row = {"document_id": i, "title": title, "text": text}
        (folder / f"shard{number}.jsonl").write_text(lines([row]))
    return folder / "shard*.jsonl"


@pytest.mark.parametrize("make", [beir, dpr, contents, table, shards])
def test_every_form_gives_the_same_documents(make: Callable[[Path], Path], tmp_path: Path) -> None:
    found = pl.concat(CorpusFile(make(tmp_path)).documents())
    assert found.columns == ["document_id", "title", "text"]
    assert found.rows() == DOCUMENTS


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("id,key,head,words,text\n1,12,Aaron,The prophet,not this\n")
    columns = {"id": "key", "title": "head", "text": "words"}
    found = pl.concat(CorpusFile(path, columns=columns).documents())
    assert found.rows() == [("12", "Aaron", "The prophet")]


def test_a_tsv_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    rejected: list[RejectedRow] = []
    # The first lines decide what the file is; a later one may be damaged.
    lines = [f"{number}\tThe text, of the {number}th." for number in range(20)]
    path.write_text("\n".join((*lines, "20\tSecond: a tab\there.", "broken")))
    found = pl.concat(CorpusFile(path, on_reject=rejected.append).documents()).rows()
    assert found[0] == ("0", "", "The text, of the 0th.") and len(found) == 21
    assert found[-1] == ("20", "", "Second: a tab\there.")
    assert [(row.line, row.reason) for row in rejected] == [(22, "no tab after the id")]


def test_a_tsv_of_one_line_or_without_blanks(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    path.write_text("d1\t巴黎是法国的首都\n")
    assert pl.concat(CorpusFile(path).documents()).rows() == [("d1", "", "巴黎是法国的首都")]


def test_a_header_of_unknown_names_is_no_document(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    path.write_text("key\twords\n1\tA text.\n")
    with pytest.raises(DataError, match="no column with texts.*key, words"):
        next(CorpusFile(path).documents())


def test_a_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.v2.txt").write_bytes(b"\xef\xbb\xbfFirst text")
    (tmp_path / "two.md.gz").write_bytes(gzip.compress(b"# Second"))
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    rejected: list[RejectedRow] = []
    found = pl.concat(CorpusFile(tmp_path, on_reject=rejected.append).documents())
    assert found.rows() == [
        ("inner/one.v2.txt", "one", "First text"),
        ("two.md.gz", "two", "# Second"),
    ]
    assert [row.reason for row in rejected] == ["not UTF-8: byte 0xe9 at byte offset 3"]


def test_a_document_without_an_id_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "a"}\n')
    first, second, again = pl.concat(CorpusFile(path).documents())["document_id"]
    assert first == again != second


def test_rows_that_hold_no_document_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "1", "text": "a"}\n[]\n{"id": "2", "text": {"deep": 1}}\nnot json\n')
    rejected: list[RejectedRow] = []
    assert pl.concat(CorpusFile(path, on_reject=rejected.append).documents()).height == 1
    assert sorted(row.line for row in rejected) == [2, 3, 4]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds none of .jsonl"),
        ({"a.txt": "x", "b.jsonl": "{}"}, "Say which"),
        ({"a.txt": " "}, "no document with text"),
        ({"a.csv": "id,name\n1,x\n"}, "no column with texts"),
        ({"a.jsonl": '{"id": "1", "name": "x"}\n' * 2}, "no column with texts"),
        ({"a.jsonl": '{"id": "1", "text": ""}\n'}, "no document with text"),
        ({"a.jsonl": "\n"}, "is empty"),
    ],
)
def test_a_folder_that_is_no_corpus(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        list(CorpusFile(tmp_path).documents())


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(lines([{"text": str(n)} for n in range(9999)]).encode())[:-99])
    with pytest.raises(DataError, match="truncated or corrupt"):
        list(CorpusFile(path).documents())


def test_a_column_that_is_mapped_and_not_there(tmp_path: Path) -> None:
    path = beir(tmp_path) / "corpus.jsonl"
    with pytest.raises(DataError, match="no column 'body'"):
        list(CorpusFile(path, columns={"text": "body"}).documents())
    with pytest.raises(ConfigError, match="Did you mean 'text'"):
        CorpusFile(path, columns={"texts": "body"})


@pytest.mark.parametrize("path", ["missing.jsonl", "nothing*.jsonl"])
def test_a_missing_corpus(path: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing.jsonl|no file matches"):
        list(CorpusFile(tmp_path / path).documents())

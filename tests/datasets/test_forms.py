"""One reader: every form, delimiter and packing gives the same rows, with their true lines."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_vllm.datasets.registry import open_dataset
from slm_vllm.errors import DataError
from support.dataset_samples import jsonl, read, write

ROWS = [
    {"question": 'Which code, of "Rome"?', "answer": "007"},
    {"question": "Which version?", "answer": "1.10"},
    {"question": "Which year; roughly?", "answer": "1990"},
    {"question": "Is it\tso?", "answer": "true"},
]
LINES = jsonl(ROWS)


def delimited(delimiter: str, **form: Any) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, **form)
    writer.writerow(["question", "answer"])
    writer.writerows([[row["question"], row["answer"]] for row in ROWS])
    return out.getvalue().encode()


def zipped(content: bytes, *more: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("questions.jsonl", content)
        for name in more:
            archive.writestr(name, b"x")
    return out.getvalue()


def framed(orient: str) -> bytes:
    """What `pandas.DataFrame.to_json` writes."""
    columns = {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}
    index = [str(n) for n in range(len(ROWS))]
    shapes: dict[str, Any] = {
        "columns": columns,
        "index": dict(zip(index, ROWS, strict=True)),
        "records": ROWS,
        "split": {
            "columns": list(ROWS[0]),
            "index": index,
            "data": [list(row.values()) for row in ROWS],
        },
        "table": {"schema": {"fields": [{"name": "question"}]}, "data": ROWS},
    }
    return json.dumps(shapes[orient]).encode()


CONTENTS: dict[str, bytes] = {
    "a.jsonl": LINES,
    "crlf.jsonl": LINES.replace(b"\n", b"\r\n"),
    "old-mac.jsonl": LINES.replace(b"\n", b"\r"),
    "array.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=2).encode(),
    "objects.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "data.json": json.dumps({"version": 1, "data": ROWS, "note": ["x"]}).encode(),
    "deep.json": json.dumps({"meta": {"n": 4}, "set": {"questions": ROWS}}, indent=1).encode(),
    "lists.json": json.dumps({k: [row[k] for row in ROWS] for k in ROWS[0]}).encode(),
    "viewer.json": json.dumps(
        {"features": [{"name": "q"}], "rows": [{"row_idx": 0, "row": row} for row in ROWS]}
    ).encode(),
    **{f"{orient}.json": framed(orient) for orient in ("columns", "index", "split", "table")},
    "a.csv": delimited(","),
    "bom.csv": b"\xef\xbb\xbf" + delimited(","),
    "semicolon.csv": delimited(";"),
    "pipe.txt": delimited("|"),
    "a.tsv": delimited("\t"),
    "hive.txt": delimited("\x01"),
    "all-quoted.csv": delimited(",", quoting=csv.QUOTE_ALL),
    "escaped.csv": delimited(",", doublequote=False, escapechar="\\"),
    "single.csv": delimited(",", quotechar="'", quoting=csv.QUOTE_ALL),
    "old-mac.csv": delimited(";", lineterminator="\r"),
    "sep.csv": b"sep=;\r\n" + delimited(";"),
    "blank-first.csv": b"\r\n\r\n" + delimited(","),
    "spelled.csv": delimited(",").replace(b"question,answer", b"Question , ANSWER", 1),
    "cells.csv": delimited(",", lineterminator=",,\r\n").replace(b"answer,,", b"answer", 1),
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.csv.xz": lzma.compress(delimited(",")),
    "a.csv.lzma": lzma.compress(delimited(","), lzma.FORMAT_ALONE),
    "a.zip": zipped(LINES, "__MACOSX/questions.jsonl"),
    "named-wrong.csv": LINES,
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_rows_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[name])
    rows, rejected = read(path)
    assert not rejected
    assert [row["question"] for row in rows] == [row["question"] for row in ROWS]
    assert [row["answers"] for row in rows] == [[row["answer"]] for row in ROWS]


@pytest.mark.parametrize("write_table", ["write_parquet", "write_ipc", "write_ipc_stream"])
def test_tables_in_columns(write_table: str, tmp_path: Path) -> None:
    getattr(pl.DataFrame(ROWS), write_table)(tmp_path / "a[1].table")
    rows, rejected = read(tmp_path / "a[1].table")
    assert not rejected
    assert [row["answers"] for row in rows] == [[row["answer"]] for row in ROWS]


def test_zstandard(tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd")
    rows, _ = read(write(tmp_path / "a.csv.zst", zstd.compress(delimited(","))))
    assert len(rows) == len(ROWS)


PAIR = b'{"question": "q", "answer": "a"}\n'
FOREIGN: dict[str, tuple[bytes, str]] = {
    "tar": (bytes(257) + b"ustar\x0000" + bytes(500), "a tar archive.*tar -xf"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "annex": (b"/annex/objects/MD5E-s9--0.jsonl\n", "git-annex"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML page.*raw file"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "zeros": (bytes(3000), "nothing but zero bytes"),
    "xlsx": (zipped(b"x", "[Content_Types].xml"), "Excel workbook.*CSV"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "old Excel.*CSV"),
    "two members": (zipped(PAIR, "b.jsonl"), r"2 files \(questions\.jsonl, b\.jsonl\).*unzip"),
    "twice": (gzip.compress(gzip.compress(PAIR)), "gzip within another archive"),
    "sqlite": (b"SQLite format 3\x00" + bytes(99), "SQLite"),
    "pickle": (b"\x80\x04\x95\x10\x00", "pickle"),
    "feather 1": (b"FEA1" + bytes(99), "Feather file of version 1"),
    "binary": (bytes(range(256)) * 9, "binary data.*00 01 02 03"),
    "no rows": (b'{"a": 1, "b": {"c": [1, 2]}}', "valid JSON, but no rows.*'a', 'b'"),
    "values": (b'[["q", "a"], ["q", "a"]]', "a JSON array, not an object"),
    "broken zip": (zipped(PAIR)[:-30], "zip archive is truncated"),
    "zip of no name": (zipped(PAIR).replace(b"questions.jsonl", b"\0" * 15), "zip archive"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_of_another_kind_is_named_for_what_it_is(what: str, tmp_path: Path) -> None:
    content, words = FOREIGN[what]
    path = tmp_path / "questions.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read(path)
    assert "\x00" not in str(error.value) and "�" not in str(error.value)


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(bz2.compress, id="bzip2"),
        pytest.param(partial(lzma.compress, preset=0), id="xz"),
    ],
)
def test_a_torn_archive_gives_the_rows_before_the_damage(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    rows = [{"question": f"q{n} {os.urandom(2000).hex()}", "answer": "a"} for n in range(2000)]
    packed = pack(jsonl(rows))
    path = tmp_path / "a.jsonl"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    got = 0
    with pytest.raises(DataError, match="truncated or corrupt"):
        for frame in open_dataset(None, path).scan(50):
            got += frame.height
    assert got > 500


def test_pipes_and_devices_are_refused_without_waiting_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="is a pipe.*to a file first"):
        read(tmp_path / "fifo")
    with pytest.raises(DataError, match="is a device"):
        read(Path("/dev/null"))


def test_zero_bytes_at_the_end_cost_one_line(tmp_path: Path) -> None:
    rows, rejected = read(write(tmp_path / "a.jsonl", LINES + bytes(5000)))
    assert len(rows) == 4 and [row.line for row in rejected] == [5]
    assert len(read(write(tmp_path / "a.json", CONTENTS["array.json"] + bytes(50)))[0]) == 4


def test_an_unclosed_quote_costs_its_row(tmp_path: Path) -> None:
    lines = [b"question,answer", b'"q1 is open,a1', b"q2,a2", b"q3,a3", b"q4,a4", b""]
    rows, rejected = read(write(tmp_path / "a.csv", b"\n".join(lines)))
    assert [row["question"] for row in rows] == ["q2", "q3", "q4"]
    assert [row.line for row in rejected] == [2]
    assert "not closed" in rejected[0].reason


def test_lines_that_an_unclosed_quote_swallows_are_counted(tmp_path: Path) -> None:
    text = b"".join(b"a line of prose without the delimiter\n" for _ in range(30))
    content = b'question,answer\nq1,a1\nq2,"a2 begins\n' + text
    rows, rejected = read(write(tmp_path / "a.csv", content))
    assert len(rows) == 1
    (row,) = rejected
    assert row.line == 3 and "31 lines are lost, up to line 33" in row.reason


def test_quotes_in_tsv_may_be_letters(tmp_path: Path) -> None:
    content = b'question\tanswer\n"Hello" said who?\tAnn\nfine\tBob\n'
    rows, rejected = read(write(tmp_path / "a.tsv", content))
    assert not rejected and rows[0]["question"] == '"Hello" said who?'


def test_rows_on_one_line_are_told_apart_by_number(tmp_path: Path) -> None:
    given = [ROWS[0], {"question": ["x"], "answer": "a"}, {"question": " ", "answer": "a"}, 3]
    _, rejected = read(write(tmp_path / "a.json", json.dumps(given).encode()))
    assert [row.line for row in rejected] == [1, 1, 1]
    assert sorted(row.reason[-7:] for row in rejected) == ["(row 2)", "(row 3)", "(row 4)"]


def test_a_damaged_first_line_is_a_damaged_line(tmp_path: Path) -> None:
    rows, rejected = read(write(tmp_path / "a.jsonl", b'{"question": "cut\n' + LINES))
    assert len(rows) == 4 and [row.line for row in rejected] == [1]


FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@FOLDER
@given(
    st.lists(st.tuples(WORDS.filter(str.strip), WORDS), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_text_survives_any_delimiter(
    tmp_path: Path, pairs: list[tuple[str, str]], delimiter: str, quoting: Any
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting)
    writer.writerow(["id", "question", "context"])
    writer.writerows([[n, *pair] for n, pair in enumerate(pairs)])
    path = tmp_path / "any.csv"
    path.write_text(out.getvalue(), "utf-8", newline="")
    rows, rejected = read(path)
    assert not rejected
    assert [row["question"] for row in rows] == [question for question, _ in pairs]

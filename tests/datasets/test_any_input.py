"""Whatever a file holds: no traceback, and as many rows as it has are usable or rejected."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_vllm.datasets.inspection import check_dataset
from slm_vllm.errors import DataError, SlmVllmError
from support.any_rows import ROW, TEXT
from support.public_layouts import LAYOUTS

FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=40,
)
# A list of `qas` stands for as many rows as it has.
ROWS = st.lists(ROW.filter(lambda row: not row.get("qas")), min_size=1, max_size=5)
KINDS = st.sampled_from([None, "qa_pairs", "hf", "simple_qa"])


def counted(path: Path, kind: str | None) -> int | None:
    """Rows that are usable or rejected; None where the file is refused as a whole."""
    try:
        report = check_dataset(str(path), kind)
    except DataError as error:
        assert str(error).isprintable()
        return None
    json.dumps(report.to_json(), ensure_ascii=False).encode()
    return report.rows + report.rejected


@FOLDER
@given(ROWS, KINDS)
def test_any_value_in_any_field_of_json_lines(
    tmp_path: Path, rows: list[dict[str, Any]], kind: str | None
) -> None:
    rows = [{"question": "q", "answer": "a"}, *rows]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert counted(path, kind) == len(rows)


@FOLDER
@given(ROWS, KINDS)
def test_any_value_in_any_field_of_an_array(
    tmp_path: Path, rows: list[dict[str, Any]], kind: str | None
) -> None:
    rows = [{"question": "q", "answer": "a"}, *rows]
    for around in (rows, {"data": rows}):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(around), "utf-8")
        assert counted(path, kind) == len(rows)


@FOLDER
@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), max_size=5), KINDS)
def test_any_text_in_any_cell_of_csv(
    tmp_path: Path, cells: list[list[str]], kind: str | None
) -> None:
    cells = [["q", "a", "c"], *cells]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["question", "answer", "context"])
    writer.writerows(cells)
    path = tmp_path / "a.csv"
    path.write_bytes(out.getvalue().encode("utf-8", "surrogateescape"))
    assert counted(path, kind) == len(cells)


@FOLDER
@given(ROWS)
def test_any_value_in_any_column_of_parquet(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows = [{"question": "q", "answer": "a"}, *rows]
    try:
        frame = pl.DataFrame(rows, infer_schema_length=None, strict=False)
        frame.write_parquet(tmp_path / "a.parquet")
    except (pl.exceptions.PolarsError, TypeError, OverflowError, ValueError):
        return  # polars itself has no such table
    assert counted(tmp_path / "a.parquet", None) == len(rows)


PACKINGS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress]


@FOLDER
@given(
    st.sampled_from([name for name in LAYOUTS if name != "BEIR"]),
    st.sampled_from(PACKINGS),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=4), st.integers(0, 4)), max_size=4),
)
def test_damaged_files_end_in_a_line(
    tmp_path: Path,
    name: str,
    pack: Callable[[bytes], bytes],
    damage: list[tuple[int, bytes, int]],
) -> None:
    path = tmp_path / LAYOUTS[name].name
    LAYOUTS[name].write(path)
    content = bytearray(pack(path.read_bytes()))
    for at, put, length in damage:
        place = at % max(1, len(content))
        content[place : place + length] = put
    path.write_bytes(content)
    try:
        check_dataset(str(path))
    except SlmVllmError as error:
        assert str(error).replace("\n", " ").isprintable()


@pytest.mark.parametrize("name", ["NQ-open.sample.merged.jsonl.gz", "simple_qa.sample.csv"])
def test_the_samples_are_read_whole(name: str) -> None:
    from support.places import sample

    report = check_dataset(str(sample(name)))
    assert report.rejected == 0 and report.rows == {"N": 1314, "s": 600}[name[0]]

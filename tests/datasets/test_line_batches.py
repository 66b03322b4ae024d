from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_vllm.datasets.base import limited_scan
from slm_vllm.datasets.reading import json_cursor
from slm_vllm.datasets.reading.json_documents import document_records
from slm_vllm.datasets.reading.lines import line_batches
from slm_vllm.datasets.reading.records import find_form, read_records
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.types import RejectedRow
from support.dataset_samples import write

SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def asks(value: Mapping[str, Any]) -> bool:
    return "a" in value


def never(row: RejectedRow) -> None:
    raise AssertionError(row)


@SHARED_FOLDER
@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_lines_numbers_and_bounds(tmp_path: Path, texts: list[str], rows: int, size: int) -> None:
    content = "".join(f"{text}\n" for text in ["first", *texts]).encode()
    path = str(write(tmp_path / "a.txt", content))
    batches = list(line_batches(path, never, max_rows=rows, max_bytes=size))
    expected = [(n, text) for n, text in enumerate(["first", *texts], 1) if text.strip()]
    assert [tuple(line) for batch in batches for line in batch] == expected
    for batch in batches:
        assert len(batch) <= rows
        assert len(batch) == 1 or sum(len(line.text.encode()) for line in batch) <= size


JSON = st.recursive(
    st.none() | st.integers() | st.booleans() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@SHARED_FOLDER
@given(
    st.lists(st.dictionaries(st.text('ab\\"'), JSON, max_size=3), max_size=6),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 30),
)
def test_array_reader_agrees_with_json_loads(
    tmp_path: Path, rows: list[dict], indent: int | None, ascii_only: bool, chunk: int
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    path = str(write(tmp_path / "a.json", text.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_cursor, "CHUNK_BYTES", chunk)
        got = list(document_records(path, never, asks))
    assert [row.value for row in got] == rows
    if indent and rows:
        lines = text.split("\n")
        assert all(lines[row.place.line - 1].strip().startswith("{") for row in got)


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_arrays_within_an_object(tmp_path: Path, chunk: int) -> None:
    content = b'{"train_size": 12345, "train": [{"a": 1}],\n "x": [1], "eval": [{"a": 2}, 3]}'
    rejected: list[RejectedRow] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_cursor, "CHUNK_BYTES", chunk)
        path = str(write(tmp_path / "a.json", content))
        form = find_form(path, asks)
        got = [
            (record.place, record.value, record.section)
            for record in read_records(path, form, asks, rejected.append)
        ]
    assert got == [((1, 1), {"a": 1}, "train"), ((2, 2), {"a": 2}, "eval")]
    assert [(row.line, row.reason) for row in rejected] == [
        (2, "a JSON number, not an object (row 3)")
    ]


def test_heavy_rows_come_in_smaller_frames(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "contexts": ["x" * 1_000_000]}
    file = tmp_path / "heavy.jsonl"
    rows = (json.dumps(row | {"question_id": str(number)}) for number in range(40))
    file.write_text("\n".join(rows))
    for most in (None, 30):
        frames = list(limited_scan(open_dataset(None, str(file)), most))
        assert max(frame.height for frame in frames) <= 10
        ids = pl.concat(frames)["question_id"].to_list()
        assert ids == [str(number) for number in range(most or 40)]

"""Rows made by the column are those that `row` makes one by one, whatever the file holds."""

from __future__ import annotations

import csv
import functools
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from slm_vllm.datasets.qa_pairs import QaPairsDataset
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.errors import DataError
from support.any_rows import ROW, TEXT, VALUES
from support.places import sample
from support.public_layouts import LAYOUTS
from support.row_by_row import assert_same

FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=50,
)
USUAL = st.fixed_dictionaries(
    {"question": st.text(max_size=5), "answer": st.lists(TEXT, max_size=3)},
    optional={
        "id": st.sampled_from(["a", "b", "", " ", 7, 10**30, True, 1.5]),
        "context": TEXT | st.lists(TEXT | st.none(), max_size=2),
        "topic": VALUES,
        "title": TEXT,
    },
)
TEXTS = st.fixed_dictionaries(
    {"question_id": TEXT | st.none(), "query": TEXT, "answers": TEXT | st.none()},
    optional={"contexts": TEXT, "note": TEXT},
)
ROWS = st.lists(USUAL | TEXTS | ROW | st.just({"question": "q", "answer": ["a", "b"]}), min_size=1)
BATCH = st.sampled_from([1, 3, 256])


@FOLDER
@given(ROWS, BATCH, st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n", "\n{\n", "\n[1]\n"]))
@example([{"question": "q", "answer": ["[1]", "(a)"]}, {"question": None}], 3, True, "\n")
@example([{"question": "b", "answers": ["c"]}, {"query": "d", "answer": "e"}], 3, True, "\n")
@example([{"question": "q", "answer": "a", "metadata": {"x": 1}}], 3, True, "\n")
@example([{"question": "q", "context": ["c"], "supporting_facts": [["", 0]]}], 3, True, "\n")
@example([{"question": "a", "id": 1}, {"question": "b", "id": 1}, {"id": 1}], 3, True, "\n")
def test_json_lines(
    tmp_path: Path, rows: list[dict[str, Any]], batch: int, with_documents: bool, between: str
) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row) for row in [{"question": "who?", "answer": "me"}, *rows, *rows[:1]]]
    path.write_bytes(b"\xef\xbb\xbf" + between.join(lines).encode())
    assert_same(path, batch, with_documents)


@FOLDER
@given(ROWS, BATCH, st.booleans())
def test_arrays(
    tmp_path: Path, rows: list[dict[str, Any]], batch: int, with_documents: bool
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"question": "who?", "answer": "me"}, *rows]}))
    assert_same(path, batch, with_documents)


@FOLDER
@given(st.lists(st.lists(TEXT, min_size=3, max_size=5), max_size=6), BATCH)
def test_csv(tmp_path: Path, cells: list[list[str]], batch: int) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["question", "answer", "context", "id"], *cells, *cells[:1]])
    path = tmp_path / "a.csv"
    path.write_bytes(out.getvalue().encode("utf-8", "surrogateescape"))
    assert_same(path, batch, with_documents=True)


@FOLDER
@given(ROWS, st.sampled_from([["topic"], [], ["note", "context"]]))
def test_columns_that_are_mapped(
    tmp_path: Path, rows: list[dict[str, Any]], kept: list[str]
) -> None:
    path = tmp_path / "a.jsonl"
    first = {"question": "who?", "answer": "me", "topic": 1, "note": 2, "context": "c"}
    path.write_text("\n".join(json.dumps(row) for row in [first, *rows]))
    columns = {"answers": "answer", "contexts": None, "metadata": kept}
    assert_same(path, 256, with_documents=True, columns=columns)


@pytest.mark.parametrize("with_documents", [True, False])
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "BEIR"])
def test_public_layouts(name: str, with_documents: bool, tmp_path: Path) -> None:
    path = tmp_path / LAYOUTS[name].name
    LAYOUTS[name].write(path)
    assert_same(path, 256, with_documents)


@FOLDER
@given(st.lists(st.tuples(st.integers(0), st.binary(max_size=3), st.integers(0, 3)), max_size=6))
def test_mutated_samples(tmp_path: Path, damage: list[tuple[int, bytes, int]]) -> None:
    content = bytearray(plain_sample())
    for at, put, length in damage:
        place = at % len(content)
        content[place : place + length] = put
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert_same(path, 256, with_documents=False)


@functools.cache
def plain_sample() -> bytes:
    """Real questions, without the pages."""
    frame = pl.concat(open_dataset("nq", sample("NQ-open.sample.merged.jsonl.gz")).scan())
    rows = frame.head(60).select("question", answer="answers", context="contexts", id="question_id")
    return rows.write_ndjson().encode()


def test_rows_before_a_fault_are_given(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"question": f"q{n}", "answer": "a"} for n in range(5)]))
    dataset = open_dataset("qa_pairs", path, on_reject=None)
    assert isinstance(dataset, QaPairsDataset)
    records = dataset.records

    def torn(*args: Any) -> Any:
        yield from records(*args)
        raise DataError("the archive is truncated")

    dataset.records = torn  # type: ignore[method-assign]
    frames = dataset.scan(3)
    assert [next(frames).height, next(frames).height] == [3, 2]
    with pytest.raises(DataError, match="truncated"):
        next(frames)

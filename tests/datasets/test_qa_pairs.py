from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from slm_vllm.datasets.qa_pairs import QaPairsDataset
from slm_vllm.datasets.registry import demo_path
from support.dataset_samples import jsonl, read, write


def test_spellings_of_the_keys(tmp_path: Path) -> None:
    given = [
        {"question_id": 7, "question": "a?", "answer": "x"},
        {"question_id": "s", "question": "b?", "answers": ["x", None, " ", 5], "context": "c"},
        {
            "question": "c?",
            "answer": None,
            "contexts": ["d", ""],
            "documents": ["t", {"id": 3, "title": "T", "text": "u"}],
        },
        {"question": "d?", "answer": [], "metadata": {"k": 1}, "year": 1914},
    ]
    rows, rejected = read(write(tmp_path / "mine.jsonl", jsonl(given)))
    assert not rejected
    assert [row["question_id"] for row in rows[:2]] == ["7", "s"]
    assert rows[2]["question_id"].startswith("qa-")
    assert [row["answers"] for row in rows] == [["x"], ["x", "5"], [], []]
    assert [row["contexts"] for row in rows] == [[], ["c"], ["d"], []]
    assert rows[2]["documents"][1] == {"document_id": "3", "title": "T", "text": "u"}
    assert json.loads(rows[3]["metadata"]) == {"k": 1, "year": 1914}


def test_same_rows_as_array_and_csv(tmp_path: Path) -> None:
    given = [{"question_id": str(n), "question": f"q{n}", "answer": "é"} for n in range(3)]
    lines, _ = read(write(tmp_path / "a.jsonl", jsonl(given)))
    array, _ = read(write(tmp_path / "a.json", json.dumps(given, indent=2).encode()))
    table = "question_id,question,answer\n" + "".join(f"{n},q{n},é\n" for n in range(3))
    csv, _ = read(write(tmp_path / "a.csv", table.encode()))
    assert lines == array == csv


def test_a_question_of_a_wrong_type_costs_the_row_other_fields_themselves(tmp_path: Path) -> None:
    given = [
        {"question": ["a"], "answer": "x"},
        {"question": "b", "answer": {"b": 1}, "context": "c"},
        {"question": "c", "answer": "x", "metadata": "text"},
        {"question": "d", "answer": "x", "context": [{"page": 3}, "kept"], "id": ["y"]},
        {"question": "fine", "answer": "x"},
    ]
    dataset = QaPairsDataset(write(tmp_path / "a.jsonl", jsonl(given)), on_reject=list().append)
    rows = pl.concat(dataset.scan()).to_dicts()
    assert [row["question"] for row in rows] == ["b", "c", "d", "fine"]
    assert [row["answers"] for row in rows] == [[], ["x"], ["x"], ["x"]]
    assert [row["contexts"] for row in rows] == [["c"], [], ["kept"], []]
    assert json.loads(rows[1]["metadata"]) == {"metadata": "text"}
    losses = dataset.notices
    assert len(losses) == 3
    for key, line in (("answer", 2), ("context", 4), ("id", 4)):
        (notice,) = [loss for loss in losses if repr(key) in loss]
        assert f"first at line {line}" in notice


def test_demo_reads_without_rejects() -> None:
    rows, rejected = read(demo_path())
    assert len(rows) >= 300 and not rejected
    assert read(Path("demo"))[0] == rows

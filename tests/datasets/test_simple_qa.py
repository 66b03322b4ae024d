from __future__ import annotations

import json
from pathlib import Path

import pytest

from slm_vllm.errors import ConfigError, DataError
from support.dataset_samples import read, simple_qa_csv, simple_qa_row, write
from support.places import sample


def test_raw_row_by_hand(tmp_path: Path) -> None:
    rows, rejected = read(write(tmp_path / "x.csv", simple_qa_csv([simple_qa_row()])))
    (row,) = rows
    assert not rejected
    assert row["question_id"].startswith("simpleqa-") and len(row["question_id"]) == 21
    assert row["answers"] == ["Painter 1"]
    assert row["contexts"] == ["Line one of 1.\n\nPainter 1 did it."]
    assert [document["text"] for document in row["documents"]] == row["contexts"]
    assert json.loads(row["metadata"])["topic"] == "Art"


def test_documents_as_a_literal_list(tmp_path: Path) -> None:
    listed = [
        simple_qa_row(1, documents="['one', 'two', 'one']"),
        simple_qa_row(2, documents="[not a list"),
        simple_qa_row(3, documents="[{'title': 't', 'text': '<P> x , y </P>'}]"),
        simple_qa_row(4, documents=""),
    ]
    rows, _ = read(write(tmp_path / "x.csv", simple_qa_csv(listed)))
    assert [row["contexts"] for row in rows] == [["one", "two"], ["[not a list"], ["x, y"], []]
    assert rows[2]["documents"][0]["title"] == "t"


def test_ids_do_not_depend_on_row_order(tmp_path: Path) -> None:
    given = [simple_qa_row(1), simple_qa_row(2)]
    forth, _ = read(write(tmp_path / "a.csv", simple_qa_csv(given)))
    back, _ = read(write(tmp_path / "b.csv", simple_qa_csv(given[::-1])))
    assert [row["question_id"] for row in forth] == [row["question_id"] for row in back][::-1]


def test_fields_larger_than_the_csv_default(tmp_path: Path) -> None:
    large = "word " * 400_000
    rows, _ = read(write(tmp_path / "x.csv", simple_qa_csv([simple_qa_row(documents=large)])))
    assert rows[0]["contexts"] == [large]


def test_bad_rows_are_rejected_with_their_line(tmp_path: Path) -> None:
    content = simple_qa_csv([simple_qa_row(1)])  # header, then lines 2 to 4
    content += b"{},too,few\r\n"
    content += "{},caf\xe9?,latin,x\r\n".encode("latin-1")
    content += simple_qa_csv([simple_qa_row(2, metadata="{'topic'")]).split(b"\r\n", 1)[1]
    content += simple_qa_csv([simple_qa_row(1), simple_qa_row(3)]).split(b"\r\n", 1)[1]
    rows, rejected = read(write(tmp_path / "x.csv", content))
    assert [row["answers"] for row in rows] == [["Painter 1"], ["Painter 2"], ["Painter 3"]]
    assert [row.line for row in rejected] == [5, 6, 10]
    reasons = [row.reason for row in rejected]
    assert "3 fields" in reasons[0]
    assert "0xe9" in reasons[1]
    assert rows[1]["metadata"] == "{}"  # what could not be read of it costs nothing else
    assert reasons[2].startswith("duplicate question_id 'simpleqa-")


def test_splits(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": "a"} for n in range(3)]
    both = {"train_size": 2, "eval_size": 1, "train": rows[:2], "eval": rows[2:]}
    path = write(tmp_path / "simple_qa_converted.json", json.dumps(both, indent=1).encode())
    assert len(read(path)[0]) == 3
    assert [row["question"] for row in read(path, split="eval")[0]] == ["q2"]
    with pytest.raises(ConfigError, match="train and eval"):
        read(path, split="test")
    with pytest.raises(DataError, match="not divided into splits"):
        read(write(tmp_path / "a.csv", simple_qa_csv([simple_qa_row()])), split="eval")


def test_real_sample() -> None:
    rows, rejected = read(sample("simple_qa.sample.csv"))
    assert len(rows) == 600 and not rejected
    assert all(row["contexts"] and row["answers"] for row in rows)

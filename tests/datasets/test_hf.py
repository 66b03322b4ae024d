from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from slm_vllm.datasets.registry import open_dataset
from slm_vllm.errors import ConfigError, DataError
from support.dataset_samples import read


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    frame = pl.DataFrame(
        {
            "id": ["x1", "x2"],
            "query": ["who?", "when?"],
            "passage": ["p1", "p2"],
            "answers": [{"forms": ["a", "b"], "start": [0, 1]}, {"forms": [], "start": []}],
            "level": [1, 2],
        }
    )
    path = tmp_path / "train-0.parquet"
    frame.write_parquet(path)
    return path


def test_columns_are_mapped(squad: Path) -> None:
    columns = {
        "question": "query",
        "answers": "answers.forms",
        "contexts": "passage",
        "metadata": ["level"],
    }
    rows, rejected = read(squad, "hf", columns=columns)
    assert not rejected
    assert [row["question_id"] for row in rows] == ["x1", "x2"]
    assert [row["question"] for row in rows] == ["who?", "when?"]
    assert [row["answers"] for row in rows] == [["a", "b"], []]
    assert rows[0]["contexts"] == ["p1"]
    assert json.loads(rows[1]["metadata"]) == {"level": 2}


def test_split_and_pattern(squad: Path) -> None:
    columns = {"question": "query", "answers": "passage"}
    pattern = str(squad.parent / "{split}-*.parquet")
    rows, _ = read(Path(pattern), "hf", split="train", columns=columns)
    assert len(rows) == 2
    with pytest.raises(ConfigError, match="dataset.split"):
        open_dataset("hf", pattern)


def test_missing_column_names_what_was_found(squad: Path) -> None:
    with pytest.raises(DataError, match=r"'level2'.*Found: parquet with the columns id, query"):
        read(squad, "hf", columns={"metadata": ["level2"]})
    with pytest.raises(ConfigError, match="no such field"):
        read(squad, "hf", columns={"frage": "query"})


def test_network_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(path: str) -> pl.LazyFrame:
        raise pl.exceptions.ComputeError("error sending request for url (https://huggingface.co)")

    monkeypatch.setattr(pl, "scan_parquet", unreachable)
    with pytest.raises(DataError, match="error sending request.*HF_TOKEN.*local path"):
        list(open_dataset(None, "hf://datasets/a/b/train.parquet").scan())


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_remote_files_are_read_as_text_and_only_the_columns_of_use(
    name: str, tmp_path: Path
) -> None:
    frame = pl.DataFrame({"query": ["q1", "q2"], "target": ["007", "1.10"], "other": ["x", "y"]})
    path = tmp_path / name
    if name == "a.parquet":
        frame.write_parquet(path)
    elif name == "a.jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if name == "a.tsv" else ",")
    columns = {"question": "query", "answers": "target"}
    # polars opens file:// as it opens hf://, and no network is needed.
    dataset = open_dataset("hf", f"file://{path}", options={"columns": columns})
    rows = pl.concat(dataset.scan()).to_dicts()
    assert [row["answers"] for row in rows] == [["007"], ["1.10"]]
    assert [row["metadata"] for row in rows] == ["{}", "{}"]

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from slm_vllm.errors import DataError
from slm_vllm.rundir.predictions import predictions_schema
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run

ROWS = [{"token_recall": 1.0}, {"token_recall": None}, {"token_recall": 0.5}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "first", rows=ROWS)


def test_reads_all_files_of_a_run(run: Path) -> None:
    data = load_run(run)
    assert (data.path, data.name) == (run, "first")
    assert data.config["model"]["name"] == data.manifest["model"]["name"] == "demo"
    assert data.results["metrics"]["token_recall"]["mean"] == 0.75
    assert data.memory is not None and data.memory["peak_rss"] == 2048.0
    assert data.predictions.schema == predictions_schema()
    assert data.predictions["token_recall"].to_list() == [1.0, None, 0.5]


def test_reads_only_the_columns_asked_for(run: Path) -> None:
    assert load_run(run, ["question_id", "f1"]).predictions.columns == ["question_id", "f1"]


def test_memory_and_state_may_be_missing(run: Path) -> None:
    (run / "memory_usage.json").unlink()
    (run / "state.json").unlink()
    assert load_run(run).memory is None


@pytest.mark.parametrize("phase", ["generating", "failed", "interrupted"])
def test_unfinished(tmp_path: Path, phase: str) -> None:
    run = make_run(tmp_path / "first", rows=ROWS, phase=phase)
    with pytest.raises(DataError, match=f"first: the run is not finished .*'{phase}'"):
        load_run(run)


@pytest.mark.parametrize(
    "name", ["results.json", "predictions.parquet", "config.yaml", "manifest.json"]
)
def test_missing_file(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(DataError, match=f"not finished .*no {name}"):
        load_run(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", b'{"name": '),
        ("results.json", b"[]"),
        ("results.json", b'{"name": "first"}'),
        ("state.json", b"\xff\xfe"),
        ("manifest.json", b"1"),
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- a"),
        ("config.yaml", b"\x00"),
        ("memory_usage.json", b""),
        ("predictions.parquet", b""),
        ("predictions.parquet", b"PAR1 this is not one PAR1"),
    ],
)
def test_damaged_file(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged"):
        load_run(run)


def test_parquet_damaged_anywhere_is_an_error_or_readable(run: Path) -> None:
    """Whatever happens to its bytes, no other exception than DataError comes out."""
    path = run / "predictions.parquet"
    whole = path.read_bytes()
    errors = 0
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        damaged = whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :]
        path.write_bytes(damaged)
        try:
            load_run(run)
        except DataError:
            errors += 1
    for length in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_run(run)
    assert errors > 0


def test_parquet_of_another_layout(run: Path) -> None:
    pl.DataFrame({"question_id": [1]}).write_parquet(run / "predictions.parquet")
    with pytest.raises(DataError, match=r"column 'question_id' is Int64, not String"):
        load_run(run)


OLD_ROWS = [
    {"prediction": "中国的首都是北京。", "answers": ["北京"], "token_recall": 0.0},
    {"prediction": "x", "answers": ["?"], "token_recall": None},
    {"prediction": "Paris", "answers": ["Paris"], "token_recall": 1.0},
]


def test_a_run_of_an_earlier_definition_is_scored_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path / "old", rows=OLD_ROWS)
    file = run / "results.json"
    results = json.loads(file.read_text())
    del results["scoring_version"]  # as version 1 wrote it
    file.write_text(json.dumps(results))
    data = load_run(run)
    assert data.predictions["token_recall"].to_list() == [1.0, None, 1.0]
    assert data.predictions["contains"].to_list() == [1.0, None, 1.0]
    assert data.predictions.columns == list(predictions_schema())
    assert data.results["token_recall"] == 1.0
    assert data.results["metrics"]["f1"]["mean"] == pytest.approx((2 * 2 / 10 + 1) / 2)
    assert data.results["counts"]["scored"] == 2
    assert "version 2 of what a word is, not 1" in data.note
    assert "token recall 0.500 then, 1.000 now)" in data.note
    assert load_run(run, ["question_id", "f1"]).predictions.columns == ["question_id", "f1"]
    assert json.loads(file.read_text()) == results


def test_a_metric_that_a_run_lacks_is_computed_from_its_predictions(tmp_path: Path) -> None:
    run = make_run(tmp_path / "old", rows=OLD_ROWS[2:])
    file = run / "results.json"
    results = json.loads(file.read_text())
    del results["metrics"]["contains"]
    file.write_text(json.dumps(results))
    predictions = pl.read_parquet(run / "predictions.parquet").drop("contains")
    predictions.write_parquet(run / "predictions.parquet")
    data = load_run(run, ["contains", "question"])
    assert data.predictions.to_dicts() == [{"contains": 1.0, "question": "What is number 0?"}]
    assert data.results["metrics"]["contains"]["mean"] == 1.0
    assert data.note == ""


def test_columns_of_another_version_are_null_or_kept(run: Path) -> None:
    path = run / "predictions.parquet"
    before = pl.read_parquet(path).drop("search", "n_passages_used")
    before.with_columns(judged=pl.lit("correct")).write_parquet(path)
    predictions = load_run(run).predictions
    assert dict(predictions.schema) == {**predictions_schema(), "judged": pl.String}
    assert predictions["search"].null_count() == predictions["n_passages_used"].null_count() == 3
    assert predictions["judged"].to_list() == ["correct"] * 3
    assert load_run(run, ["search", "question"]).predictions.columns == ["search", "question"]


@pytest.mark.parametrize("name", ["prediction", "question_id"])
def test_what_cannot_be_computed_must_be_there(run: Path, name: str) -> None:
    path = run / "predictions.parquet"
    pl.read_parquet(path).drop(name).write_parquet(path)
    with pytest.raises(DataError, match=f"column '{name}' is missing, not String"):
        load_run(run)

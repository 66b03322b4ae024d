"""The real command with real vLLM engines in Ray actors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = 12


@pytest.mark.usefixtures("demo_model_path")
def test_two_replicas_answer_as_one_engine(tmp_path: Path) -> None:
    predictions = {}
    for name, words in (("one", []), ("two", ["--engine", "ray", "--replicas", "2"])):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "slm_vllm", "eval", "--model", "demo", "--dataset", "demo"),
                *("--mode", "no_context", "--samples", str(ROWS), "--no-clearml", *words),
                *("--name", name, "--output-dir", str(tmp_path)),
            ],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        predictions[name] = pl.read_parquet(tmp_path / name / "predictions.parquet")
    assert predictions["one"]["question_id"].equals(predictions["two"]["question_id"])
    # Another batch size can change the last digits, and with them a word.
    assert (predictions["one"]["prediction"] != predictions["two"]["prediction"]).sum() <= 1
    replicas = json.loads((tmp_path / "two" / "memory_usage.json").read_text())["replicas"]
    assert [found["peak_rss"] > 500 for found in replicas.values()] == [True, True]
    log = (tmp_path / "two" / "experiment.log").read_text(errors="replace")
    assert "replica 0 runs on" in log and "replica 1 runs on" in log

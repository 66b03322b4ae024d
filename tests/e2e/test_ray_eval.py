"""The real command with real vLLM engines in Ray actors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.real_runs import assert_same_answers, evaluate

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("model")]


def test_two_replicas_answer_as_one_engine(undisturbed: Path, tmp_path: Path) -> None:
    evaluate(
        tmp_path, "--mode", "no_context", "--samples", "24", *("--engine", "ray", "--replicas", "2")
    )
    folder = tmp_path / "demo_demo_no_context"
    assert_same_answers(folder, undisturbed / "demo_demo_no_context")
    replicas = json.loads((folder / "memory_usage.json").read_text())["replicas"]
    assert [found["peak_rss"] > 500 for found in replicas.values()] == [True, True]
    log = (folder / "experiment.log").read_text(errors="replace")
    assert "replica 0 runs on" in log and "replica 1 runs on" in log

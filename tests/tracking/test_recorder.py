"""The figures that a tracker is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_vllm.rundir.names import SPOOL
from slm_vllm.tracking.events import Figure, Scalars
from slm_vllm.tracking.recorder import Recorder, single_values
from slm_vllm.tracking.spool import read_spool
from support.tracked import Memory, StepProgress


def test_points_are_seconds_apart_and_have_the_rates_since_the_last_one(
    run_folder: Path, config: Callable[..., Any]
) -> None:
    now = [100.0]
    recorder = Recorder(run_folder, clock=lambda: now[0])
    recorder.started(config(), {}, 150)
    for now[0], done in ((101.0, 10), (102.0, 20), (106.0, 60)):
        recorder.progress(StepProgress(done, 5 * done, 0.5), Memory)
    recorder.finished()
    events = [event for event, _ in read_spool(run_folder / SPOOL)]
    first, second = (event for event in events if isinstance(event, Scalars))
    assert (first.step, second.step) == (10, 60)
    assert "Questions per second" not in first.values
    assert second.values == {
        "Token recall": {"running": 0.5},
        "Questions per second": {"since the last point": 10.0},
        "Tokens per second": {"since the last point": 50.0},
        "Memory (MiB)": {"process tree": 512.0},
    }
    (progress,) = (e for e in events if isinstance(e, Figure) and e.title == "Progress")
    assert [line["x"] for line in progress.plotly["data"]] == [[1.0, 6.0]] * 2


def test_what_a_search_cost_the_model_is_told_by_stage() -> None:
    stages = {"rerank": {"prompt_tokens": 5000, "seconds": 1.5}}
    results = {"metrics": {"f1": {"mean": 0.5}}, "stages": stages}
    assert single_values(results, {}) == {
        "f1": 0.5, "rerank_prompt_tokens": 5000.0, "rerank_seconds": 1.5,
    }  # fmt: skip

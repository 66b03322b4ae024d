"""Sweeps whose models race: what is behind ends early."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_vllm.config.schema import Config
from slm_vllm.sweeps.grid import SweepGrid
from slm_vllm.sweeps.plan import PlannedCell, plan_sweep
from slm_vllm.sweeps.race import raced
from slm_vllm.sweeps.sweep import run_sweep
from support.qa_files import write_rows
from support.run_folders import make_run

MakeConfig = Callable[..., Config]
PROGRAM = (sys.executable, "-m", "support.fake_sweep_group")


@pytest.fixture
def cell(make_config: MakeConfig, tmp_path: Path) -> Callable[..., PlannedCell]:
    """A cell; with values, one that has run and has these as its token recall."""

    def make(name: str, *words: str, values: list[float] | None = None) -> PlannedCell:
        config = make_config(f"experiment.name={name}", f"model.name={name}", *words)
        if values is not None:
            make_run(tmp_path / "outputs" / name, rows=[{"token_recall": v} for v in values])
        return PlannedCell(config, "done" if values else "new")

    return make


def test_the_first_model_has_nobody_to_race(cell: Callable[..., PlannedCell]) -> None:
    first = cell("first")
    assert raced(first, [], 3) == first.config
    assert raced(first, [cell("begun")], 3) == first.config


def test_the_others_race_the_best_one_before(cell: Callable[..., PlannedCell]) -> None:
    earlier = [
        cell("low", values=[0.0, 1.0]),
        cell("high", values=[1.0, 1.0]),
        cell("middle", values=[1.0, 0.5]),
    ]
    new = cell("new")
    experiment = raced(new, earlier, 5).experiment
    assert (experiment.until, experiment.against) == ("worse", "high")
    assert experiment.level == pytest.approx(0.05 / 4)
    assert raced(new, earlier, 5).model == new.config.model


def test_only_whole_runs_of_the_same_questions_count(
    cell: Callable[..., PlannedCell], tmp_path: Path
) -> None:
    stopped = cell("stopped", values=[1.0, 1.0])
    path = tmp_path / "outputs" / "stopped" / "results.json"
    until = {"questions": 2, "of": 10}
    path.write_text(json.dumps({**json.loads(path.read_text()), "until": until}))
    others = [
        stopped,
        cell("oracle", "experiment_mode=oracle", values=[1.0]),
        cell("short", "experiment.max_samples=1", values=[1.0]),
        cell("low", values=[0.25, 0.25]),
    ]
    assert raced(cell("new"), others, 5).experiment.against == "low"


@pytest.mark.slow
def test_a_sweep_runs_its_race(
    tmp_path: Path,
    tiny_model: Path,
    rows: list[dict[str, object]],
) -> None:
    models = []
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tiny_model)
        models.append(str(tmp_path / name))
    grid = SweepGrid(
        models=tuple(models),
        datasets=(str(write_rows(tmp_path / "qa.jsonl", rows)),),
        modes=("no_context",),
        overrides=("hardware=cpu", "tracking.tracker=none", f"cache_dir={tmp_path / 'cache'}"),
        output_dir=str(tmp_path / "out"),
    )

    def race() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        cells = plan_sweep(grid)
        results = run_sweep(cells, grid.folder, quiet=True, program=PROGRAM, race=True)
        configs = [yaml.safe_load((one.folder / "config.yaml").read_text()) for one in cells]
        return results, [config["experiment"] for config in configs]

    results, settings = race()
    assert [one["until"] for one in settings] == ["all", "worse"]
    assert settings[1]["against"] == results[0]["name"]
    assert "until" not in results[0] and results[1]["until"]["questions"] == 10
    again, _ = race()
    assert [one["metrics"] for one in again] == [one["metrics"] for one in results]

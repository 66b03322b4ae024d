"""Plans the cells of a sweep, and finds those that are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slm_vllm.config.compose import compose_config
from slm_vllm.config.overrides import quoted
from slm_vllm.config.schema import Config
from slm_vllm.config.shorthand import (
    dataset_override,
    mode_override,
    model_override,
    retriever_override,
)
from slm_vllm.errors import ConfigError, SlmVllmError
from slm_vllm.rundir.contents import Results, State, Throughput
from slm_vllm.rundir.files import (
    if_readable,
    read_config,
    read_manifest,
    read_results,
    read_state,
)
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.runs.choices import check_choices
from slm_vllm.runs.contexts import context_of
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.sweeps.grid import SweepGrid

_ENDING = ("until", "against", "margin", "level")
Status = Literal["new", "begun", "done"]


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One run of a sweep.

    Attributes:
        config: Its configuration.
        status: What is there of it already.
        rows: Its number of rows where that is known beforehand.
        left: How many of them have no answer, where that is known.
        rate: Questions a second that it ran at, when it is done.
    """

    config: Config
    status: Status
    rows: int | None = None
    left: int | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return self.config.experiment.name

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.config.experiment.folder


def plan_sweep(grid: SweepGrid, *, overwrite: bool = False) -> list[PlannedCell]:
    """Composes every cell, models outermost, so that cells of one model follow one another.

    Args:
        grid: The axes.
        overwrite: Whether earlier runs will be replaced.

    Raises:
        ConfigError: A name that does not exist, a cell twice, or a run folder that holds a run
            of another configuration.
    """
    cells = [
        _planned(config, overwrite)
        for model in grid.models
        for dataset in grid.datasets
        for config in _configs(grid, model, dataset)
    ]
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two cells of this sweep would both be called {twice[0]}: something is named twice, "
            "or two files have the same name (rename one of them)"
        )
    return cells


def groups(cells: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """Cells that share an engine load, in the order of the plan."""
    found: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        found.setdefault(cell.config.model.model_dump_json(), []).append(cell)
    return list(found.values())


def seconds_left(cells: Sequence[PlannedCell]) -> float | None:
    """Estimated time of what is not done, from the rates of done cells of the same models.

    None when a model has no done cell, or a number of rows is not known.
    """
    rates: dict[str, list[float]] = {}
    rows: dict[str, int] = {}
    for cell in cells:
        if cell.rate:
            rates.setdefault(cell.config.model.path, []).append(cell.rate)
        if cell.rows is not None:
            rows[cell.config.dataset.path] = cell.rows
    seconds = 0.0
    for cell in cells:
        if cell.status == "done":
            continue
        known = rates.get(cell.config.model.path)
        left = cell.left if cell.left is not None else rows.get(cell.config.dataset.path)
        if not known or left is None:
            return None
        seconds += left / min(known)  # the slowest mode, to be on the safe side
    return seconds


def _configs(grid: SweepGrid, model: str, dataset: str) -> list[Config]:
    words = [
        *model_override(model, grid.config_dir),
        *dataset_override(dataset, grid.config_dir),
        f"experiment.output_dir={quoted(str(grid.folder))}",
    ]
    if grid.samples is not None:
        words.append(f"experiment.max_samples={grid.samples}")
    configs = []
    for mode in grid.modes:
        chosen = [*words, *mode_override(mode, grid.config_dir)]
        plain = "experiment.name=${model.name}_${dataset.name}_${experiment_mode.name}"
        first = compose_config([*chosen, plain, *grid.overrides], grid.config_dir)
        check_choices(first)
        if not context_of(first).searches:
            configs.append(first)
            continue
        for searched, named in _searches(grid):
            words_of_cell = [*chosen, *searched, plain + named, *grid.overrides]
            configs.append(compose_config(words_of_cell, grid.config_dir))
            check_choices(configs[-1])
    return configs


def _searches(grid: SweepGrid) -> Iterator[tuple[list[str], str]]:
    """Overrides that choose each search of the grid, and what they add to the run's name."""
    for retriever in grid.retrievers:
        chosen = retriever_override(retriever, grid.config_dir)
        yield from (
            ([*chosen, f"retriever.top_k={k}"], f"_${{retriever.name}}_top{k}") for k in grid.top_k
        )
        if not grid.top_k:
            yield chosen, "_${retriever.name}"


def _planned(config: Config, overwrite: bool) -> PlannedCell:
    folder = RunFolder(config.experiment.folder)
    rows = config.max_samples
    if overwrite or not folder.holds_answers(config):
        return PlannedCell(config, "new", rows, rows)
    state: State = if_readable(read_state, folder.path) or {}
    results: Results = if_readable(read_results, folder.path) or {}
    total, done = state.get("total"), state.get("done")
    finished = state.get("phase") == "finished"
    if finished and _still_valid(config, folder.path):
        rate = results.get("throughput", Throughput()).get("questions_per_second")
        return PlannedCell(config, "done", total, 0, rate)
    if isinstance(total, int) and not finished:
        rows = total  # a finished run's were those of other samples or another file
    left = None if rows is None or not isinstance(done, int) else max(0, rows - done)
    return PlannedCell(config, "begun", rows, left)


def _still_valid(config: Config, folder: Path) -> bool:
    """Whether finished results are of the same rows, an unchanged dataset, asked and checked so."""
    before = if_readable(read_config, folder)
    manifest = if_readable(read_manifest, folder)
    if before is None or manifest is None or before.max_samples != config.max_samples:
        return False
    now, then = config.experiment, before.experiment
    if now.repeat_check not in (None, then.repeat_check):
        return False
    if any(getattr(now, key) != getattr(then, key) for key in _ENDING):
        return False
    try:
        return manifest.get("dataset") == QuestionSet(config).identity
    except (OSError, SlmVllmError):
        return False  # its own run will say what is wrong

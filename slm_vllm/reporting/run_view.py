"""How runs are named and coloured in one report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slm_vllm.reporting.config_diff import context_of
from slm_vllm.rundir.reading import RunData

_MODE_ORDER = {"none": 0, "retriever": 1, "oracle": 2}


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its place in the report.

    Attributes:
        run: The run.
        model: Its model.
        dataset: Its dataset.
        condition: Mode, and retriever where there is one; the run's name where two runs of the
            report share model, dataset and mode.
        label: The shortest name that is unique in the report.
        colour: Name of the colour of its condition.
        shape: Number of the marker of its model.
    """

    run: RunData
    model: str
    dataset: str
    condition: str
    label: str
    colour: str
    shape: int


def view_runs(runs: Sequence[RunData]) -> list[RunView]:
    """Orders runs by dataset, model and mode, and gives each label, colour and marker."""
    datasets = _numbered(_dataset(run) for run in runs)
    models = _numbered(_model(run) for run in runs)
    ordered = sorted(
        runs,
        key=lambda run: (datasets[_dataset(run)], models[_model(run)], _mode_rank(run), run.name),
    )
    cells = Counter((_model(run), _dataset(run), _condition(run)) for run in runs)
    conditions = [
        _condition(run) if cells[_model(run), _dataset(run), _condition(run)] == 1 else run.name
        for run in ordered
    ]
    by_rank = sorted(
        zip(ordered, conditions, strict=True), key=lambda pair: (_mode_rank(pair[0]), pair[1])
    )
    colours = _numbered(condition for _, condition in by_rank)
    views = []
    for run, condition in zip(ordered, conditions, strict=True):
        parts = [_model(run)] if len(models) > 1 and condition != run.name else []
        parts += [_dataset(run)] if len(datasets) > 1 and condition != run.name else []
        views.append(
            RunView(
                run=run,
                model=_model(run),
                dataset=_dataset(run),
                condition=condition,
                label=" · ".join([*parts, condition]),
                colour=f"series-{colours[condition] % 8}",
                shape=models[_model(run)],
            )
        )
    return views


def _numbered(names: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for name in names:
        numbers.setdefault(name, len(numbers))
    return numbers


def _model(run: RunData) -> str:
    return str(run.results["model"])


def _dataset(run: RunData) -> str:
    return str(run.results["dataset"])


def _condition(run: RunData) -> str:
    retriever = run.results.get("retriever")
    mode = str(run.results["mode"])
    return f"{mode} · {retriever}" if retriever else mode


def _mode_rank(run: RunData) -> int:
    return _MODE_ORDER.get(context_of(run), len(_MODE_ORDER))

"""How runs are named and coloured in one report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slm_vllm.reporting.context_role import ROLES, role_of
from slm_vllm.rundir.reading import RunData

# Numbers of colours; what is not named here takes those that are left, by name.
_COLOURS = {
    "no_context": 0,
    "retriever · bm25": 1,
    "oracle": 2,
    "retriever · dense": 3,
    "retriever · hybrid": 4,
    "retriever · rank_bm25": 5,
}
# In the order in which they are given away: those that belong to no mode first.
_SPARE = (6, 7, 5, 4, 3, 2, 1, 0)


@dataclass(frozen=True, slots=True, eq=False)
class RunView:
    """A run with its place in the report.

    Attributes:
        run: The run.
        model: Its model.
        dataset: Its dataset.
        mode: Its mode, and its retriever where there is one.
        condition: The mode; the run's name where two runs of the report share model, dataset
            and mode.
        label: The shortest name that is unique in the report.
        colour: Name of its mode's colour, the same in every report.
        shape: Number of the marker of its model.
    """

    run: RunData
    model: str
    dataset: str
    mode: str
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
        key=lambda run: (
            datasets[_dataset(run)],
            models[_model(run)],
            ROLES.index(role_of(run)),
            run.name,
        ),
    )
    cells = Counter((_model(run), _dataset(run), _mode(run)) for run in runs)
    conditions = [
        _mode(run) if cells[_model(run), _dataset(run), _mode(run)] == 1 else run.name
        for run in ordered
    ]
    colours = _colours(list(dict.fromkeys(zip(map(_mode, ordered), conditions, strict=True))))
    views = []
    for run, condition in zip(ordered, conditions, strict=True):
        parts = [_model(run)] if len(models) > 1 and condition != run.name else []
        parts += [_dataset(run)] if len(datasets) > 1 and condition != run.name else []
        views.append(
            RunView(
                run=run,
                model=_model(run),
                dataset=_dataset(run),
                mode=_mode(run),
                condition=condition,
                label=" · ".join([*parts, condition]),
                colour=f"series-{colours[condition]}",
                shape=models[_model(run)],
            )
        )
    return views


def _colours(named: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The colour of each condition, from (mode, condition).

    Where several runs share a mode, the first has its colour.
    """
    found: dict[str, int] = {}
    left: list[str] = []
    for mode, condition in sorted(named, key=lambda pair: (pair[0] != pair[1], pair)):
        number = _COLOURS.get(mode)
        if number is None or number in found.values():
            left.append(condition)
        else:
            found[condition] = number
    free = [number for number in _SPARE if number not in found.values()]
    for i, condition in enumerate(left):
        found[condition] = free[i % len(free)]
    return found


def _numbered(names: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for name in names:
        numbers.setdefault(name, len(numbers))
    return numbers


def _model(run: RunData) -> str:
    return str(run.results["model"])


def _dataset(run: RunData) -> str:
    return str(run.results["dataset"])


def _mode(run: RunData) -> str:
    retriever = run.results.get("retriever")
    mode = str(run.results["mode"])
    return f"{mode} · {retriever}" if retriever else mode

"""What the runs of a report do not say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from slm_vllm.reporting.context_role import Role, role_of
from slm_vllm.reporting.pairing import DatasetPairs
from slm_vllm.reporting.run_view import RunView
from slm_vllm.scoring.metrics import MAIN, METRICS

# Of runs in one sentence.
_MOST_NAMES = 4


def cautions(datasets: Sequence[DatasetPairs]) -> list[str]:
    """What the figures do not tell."""
    found = [note for dataset in datasets for note in dataset.notes]
    for dataset in datasets:
        if len(dataset.views) == 1:
            found += _alone(dataset.views[0])
        found += _limits(dataset)
    if any(dataset.pairs for dataset in datasets):
        found.append("Speeds and memory are of one pass each and have no interval.")
    found += _machines([view for dataset in datasets for view in dataset.views])
    return found


def _machines(views: Sequence[RunView]) -> Iterator[str]:
    """Runs of other machines answer alike, more or less, but neither as fast nor in as little."""
    runs: dict[str, list[str]] = {}
    for view in views:
        device = view.run.manifest.get("device")
        name = device.get("name") if isinstance(device, Mapping) else None
        runs.setdefault(str(name or "an unknown device"), []).append(view.run.name)
    if len(runs) > 1:
        devices = "; ".join(f"{name}: {_listed(names)}" for name, names in runs.items())
        yield f"Runs of different devices do not compare in speed and memory ({devices})."


def _listed(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _alone(view: RunView) -> Iterator[str]:
    yield (
        f"{view.run.name} is the only run on {view.dataset}: whether it is good for that dataset "
        "is not seen here."
    )
    recall = view.run.results["metrics"][MAIN]
    low, high = recall["ci95"]
    if low is not None and high is not None:
        yield (
            f"{recall['n']:,} questions leave its {METRICS[MAIN].label} open by about "
            f"{(high - low) / 2:.3f} either way; a difference to another run may be settled better."
        )


def _limits(dataset: DatasetPairs) -> Iterator[str]:
    if dataset.pairs:
        widest = max(
            (pair.paired.difference for pair in dataset.pairs), key=lambda one: one.high - one.low
        )
        yield (
            f"{widest.n:,} questions of {dataset.dataset} do not settle differences below about "
            f"{(widest.high - widest.low) / 2:.3f}."
        )
    models = dict.fromkeys(view.model for view in dataset.views)
    lacks: tuple[tuple[Role, str, str], ...] = (
        ("closed book", "a closed-book", "which right answers context destroyed"),
        ("bound", "an oracle", "how much better passages could gain"),
    )
    for role, name, what in lacks:
        lacking = [
            model
            for model in models
            if not any(v.model == model and role_of(v.run) == role for v in dataset.views)
        ]
        if lacking and any(role_of(view.run) == "context" for view in dataset.views):
            yield f"Without {name} run of {', '.join(lacking)} it is not known {what}."

"""Which runs of a report are compared with each other, and how they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from slm_vllm.errors import DataError
from slm_vllm.reporting.alignment import AlignedRuns, align
from slm_vllm.reporting.comparison import SEED
from slm_vllm.reporting.context_effect import ContextEffect, context_effects
from slm_vllm.reporting.context_role import role_of
from slm_vllm.reporting.numeric_floor import floor_notes
from slm_vllm.reporting.other_metrics import Dissent, dissents, other_values
from slm_vllm.reporting.run_view import RunView
from slm_vllm.scoring.metrics import MAIN
from slm_vllm.scoring.paired import PairedComparison, holm

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs over one dataset; differences are `run` minus `against`.

    Attributes:
        run: The one.
        against: The other.
        paired: The difference in the main metric.
        p_holm: Its p-value, corrected over all pairs of the report.
        dissents: Other metrics that say something else.
    """

    run: RunView
    against: RunView
    paired: PairedComparison
    p_holm: float = math.nan
    dissents: tuple[Dissent, ...] = ()

    @property
    def is_clear(self) -> bool:
        """Whether the main metric tells the two apart."""
        return self.p_holm < SIGNIFICANCE


@dataclass(frozen=True, slots=True)
class DatasetPairs:
    """The runs of a report over one dataset, compared with each other.

    Attributes:
        dataset: Its name.
        views: The runs that could be compared.
        aligned: The same, question by question; None where nothing could be compared.
        pairs: Those that differ in one thing, and the best two.
        effects: What context did, for each run that has some.
        notes: What the reader should know.
    """

    dataset: str
    views: tuple[RunView, ...]
    aligned: AlignedRuns | None
    pairs: tuple[Pair, ...]
    effects: tuple[ContextEffect, ...]
    notes: tuple[str, ...]


def paired_datasets(views: Sequence[RunView]) -> list[DatasetPairs]:
    """Compares the runs of each dataset with each other; p-values are Holm's, over all pairs."""
    names = dict.fromkeys(view.dataset for view in views)
    found = [_paired(name, tuple(view for view in views if view.dataset == name)) for name in names]
    adjusted = iter(holm([pair.paired.p_value for one in found for pair in one.pairs]))
    found = [
        replace(one, pairs=tuple(replace(pair, p_holm=next(adjusted)) for pair in one.pairs))
        for one in found
    ]
    n_pairs = sum(len(one.pairs) for one in found)
    return [replace(one, pairs=tuple(_with_dissents(one, n_pairs))) for one in found]


def ranked(views: Sequence[RunView]) -> list[RunView]:
    """The runs that may win, the highest mean first.

    An oracle run is a bound and none of them, nor is one that was stopped since it is below another
    of these: its mean is of few questions.
    """
    names = {view.run.name for view in views}
    rivals = [view for view in views if role_of(view.run) != "bound"]
    rivals = [view for view in rivals if _better_than(view) not in names]
    rivals = [view for view in rivals if mean_of(view) is not None]
    return sorted(rivals, key=lambda view: -(mean_of(view) or 0.0))


def _better_than(view: RunView) -> str | None:
    """The run that this one was stopped for being below of, None where there is none."""
    until = view.run.results.get("until")
    return until["against"] if until is not None and until["decision"] == "worse" else None


def mean_of(view: RunView) -> float | None:
    """The run's main metric, None where nothing was scored."""
    mean: float | None = view.run.results["metrics"][MAIN]["mean"]
    return mean


def _paired(dataset: str, views: tuple[RunView, ...]) -> DatasetPairs:
    scored = tuple(view for view in views if mean_of(view) is not None)
    notes = [f"{view.run.name}: no row is scored." for view in views if view not in scored]
    if len(scored) < 2:
        return DatasetPairs(dataset, scored, None, (), (), tuple(notes))
    try:
        aligned = align([view.run for view in scored], MAIN, intersect=True, allow_different=True)
    except DataError as error:
        return DatasetPairs(dataset, scored, None, (), (), (*notes, f"Not compared: {error}."))
    effects, loosely = context_effects(aligned, seed=SEED)
    pairs = tuple(_pairs(scored, aligned))
    for pair in pairs:
        loosely += floor_notes(pair.run.run, pair.against.run, pair.paired.difference, MAIN)
    return DatasetPairs(
        dataset, scored, aligned, pairs, tuple(effects), (*notes, *aligned.notes, *loosely)
    )


def _with_dissents(dataset: DatasetPairs, n_pairs: int) -> Iterator[Pair]:
    if dataset.aligned is None:
        return
    values = other_values(dataset.aligned)
    place = {view: number for number, view in enumerate(dataset.views)}
    for pair in dataset.pairs:
        found = dissents(
            values,
            place[pair.run],
            place[pair.against],
            pair.paired.difference,
            main_is_clear=pair.is_clear,
            significance=SIGNIFICANCE / n_pairs,
            is_always_valid=pair.paired.is_always_valid,
            seed=SEED,
        )
        yield replace(pair, dissents=found)


def _pairs(views: Sequence[RunView], aligned: AlignedRuns) -> list[Pair]:
    best = ranked(views)[:2]
    pairs = []
    for first, second in combinations(range(len(views)), 2):
        run, against = views[second], views[first]
        if not (_differ_in_one_thing(run, against) or (run in best and against in best)):
            continue
        paired = aligned.paired(second, first, seed=SEED)
        if paired.difference.n:
            pairs.append(Pair(run, against, paired))
    return pairs


def _differ_in_one_thing(run: RunView, other: RunView) -> bool:
    """Context of one model without the bound, or models in one condition."""
    if run.model == other.model:
        roles = {role_of(run.run), role_of(other.run)}
        return "bound" not in roles or len(roles) == 1
    return run.mode == other.mode

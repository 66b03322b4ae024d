"""How many questions a comparison will need, learned from earlier runs: `compare --plan`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from slm_vllm.errors import ConfigError, DataError
from slm_vllm.json_text import as_number
from slm_vllm.reporting.comparison import (
    BaselinePair,
    DatasetComparison,
    check_metric,
    compare_runs,
    with_unique_names,
)
from slm_vllm.reporting.grids import Grid, as_csv, as_text
from slm_vllm.rundir.reading import RunData
from slm_vllm.scoring.metrics import described
from slm_vllm.scoring.power import (
    ALPHA,
    POWER,
    PairedSpread,
    assumed_spread,
    detectable_difference,
    questions_needed,
)

DIFFERENCES = (0.01, 0.02, 0.05, 0.10)
_CORRELATION = 0.5
_CSV_COLUMNS = (
    "dataset", "learned_from", "metric", "n", "variance", "correlation", "power", "alpha",
    "difference", "questions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PairPlan:
    """What one pair of earlier runs, or one run, lets expect.

    Attributes:
        dataset: Its dataset.
        learned_from: The runs.
        variance: Of the paired differences as they were; 0 where no question tells the runs apart.
        mean: Their mean; None where one run is all there is.
        correlation: The assumed one of a single run's values with those of the run it will be
            compared with; None where two runs tell the variance themselves.
        n: Questions behind the variance.
        needed: Questions for each of the plan's differences; None where the variance is 0.
        shown: The smallest difference that `n` questions show; None likewise.
    """

    dataset: str
    learned_from: str
    variance: float
    mean: float | None
    correlation: float | None
    n: int
    needed: tuple[int | None, ...]
    shown: float | None


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """The whole plan.

    Attributes:
        metric: The metric that will be compared.
        differences: True differences that shall be found.
        power: The probability to find them.
        alpha: That of finding one where there is none.
        pairs: One for each pair of runs, or for a run that is alone on its dataset.
    """

    metric: str
    differences: tuple[float, ...]
    power: float
    alpha: float
    pairs: tuple[PairPlan, ...]


def plan_power(
    runs: Sequence[RunData],
    metric: str,
    *,
    differences: Sequence[float] = (),
    power: float | None = None,
    alpha: float | None = None,
    correlation: float | None = None,
    baseline: Path | None = None,
    intersect: bool = False,
    allow_different: bool = False,
) -> PowerPlan:
    """Plans from the variance of earlier runs.

    Args:
        runs: Finished runs; pairs are those of `compare_runs`.
        metric: One of `scoring.metrics.METRICS`.
        differences: To be found; none: `DIFFERENCES`.
        power: None: 0.8.
        alpha: None: 0.05.
        correlation: For runs that are alone on their dataset; None: `_CORRELATION`.
        baseline: As for `compare_runs`, with the next two.
        intersect: Likewise.
        allow_different: Likewise.

    Raises:
        ConfigError: Unknown metric, a figure that is no probability, or runs that do not go
            together.
        DataError: A run cannot be used.
    """
    check_metric(metric)
    power, alpha = _default(power, POWER), _default(alpha, ALPHA)
    _check(differences, power, alpha, correlation)
    wanted = _Wanted(tuple(differences) or DIFFERENCES, power, alpha)
    counts = Counter(str(run.results["dataset"]) for run in runs)
    alone = [run for run in runs if counts[str(run.results["dataset"])] == 1]
    together = [run for run in runs if run not in alone]
    pairs = []
    if together:
        is_one = baseline and any(run.path.resolve() == baseline.resolve() for run in together)
        comparison = compare_runs(
            together,
            metric,
            baseline=baseline if is_one else None,
            intersect=intersect,
            allow_different=allow_different,
        )
        pairs += [_of_pair(one, pair, wanted) for one in comparison.datasets for pair in one.pairs]
    assumed = _default(correlation, _CORRELATION)
    pairs += [_of_one(run, metric, assumed, wanted) for run in with_unique_names(alone)]
    return PowerPlan(metric, *wanted, tuple(pairs))


def render_plan(plan: PowerPlan, form: str) -> str:
    """The plan in one of the formats of a comparison."""
    if form == "json":
        return json.dumps(asdict(plan), ensure_ascii=False, indent=2)
    if form == "csv":
        return as_csv(_CSV_COLUMNS, _csv_rows(plan))
    return as_text([_grid(plan)], form)


class _Wanted(NamedTuple):
    differences: tuple[float, ...]
    power: float
    alpha: float


def _of_pair(dataset: DatasetComparison, pair: BaselinePair, wanted: _Wanted) -> PairPlan:
    found = pair.paired.difference
    spread = PairedSpread(found.stderr**2 * found.n, found.mean)
    name = f"{pair.run} against {dataset.baseline}"
    return _plan(dataset.dataset, name, spread, found.n, None, wanted)


def _of_one(run: RunData, metric: str, correlation: float, wanted: _Wanted) -> PairPlan:
    values = run.predictions[metric].cast(pl.Float64).drop_nulls().drop_nans()
    variance = np.var(values.to_numpy(), ddof=1) if len(values) > 1 else math.nan
    spread = assumed_spread(float(variance), correlation)
    return _plan(str(run.results["dataset"]), run.name, spread, len(values), correlation, wanted)


def _plan(
    dataset: str,
    name: str,
    spread: PairedSpread,
    n: int,
    correlation: float | None,
    wanted: _Wanted,
) -> PairPlan:
    if math.isnan(spread.variance):
        raise DataError(f"{name}: {n} scored questions tell nothing about the variance")
    if spread.variance == 0:
        nothing = (None,) * len(wanted.differences)
        return PairPlan(dataset, name, 0.0, spread.mean, correlation, n, nothing, None)
    levels = {"power": wanted.power, "alpha": wanted.alpha}
    needed = tuple(questions_needed(spread, one, **levels) for one in wanted.differences)
    shown = as_number(detectable_difference(spread, n, **levels))
    return PairPlan(dataset, name, spread.variance, spread.mean, correlation, n, needed, shown)


def _default(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _check(
    differences: Sequence[float], power: float, alpha: float, correlation: float | None
) -> None:
    for one in differences:
        if not 0 < one < 1:
            raise ConfigError(f"--difference {one:g}: metrics differ by something between 0 and 1")
    if not 0 < alpha < 1:
        raise ConfigError(f"--alpha {alpha:g}: is a probability between 0 and 1, such as 0.05")
    if not alpha < power < 1:
        raise ConfigError(f"--power {power:g}: is a probability between --alpha and 1, such as 0.8")
    if correlation is not None and not -1 <= correlation < 1:
        raise ConfigError(f"--correlation {correlation:g}: is at least -1 and below 1")


def _grid(plan: PowerPlan) -> Grid:
    header = (
        "learned from", "dataset", "n", "sd of differences",
        *(f"for {one:g}" for one in plan.differences), "n show",
    )  # fmt: skip
    rows = tuple(
        (
            pair.learned_from,
            pair.dataset,
            f"{pair.n:,}",
            f"{math.sqrt(pair.variance):.3f}",
            *("-" if n is None else f"{n:,}" for n in pair.needed),
            "-" if pair.shown is None else f"{pair.shown:.3f}",
        )
        for pair in plan.pairs
    )
    label = described(plan.metric).label
    title = f"Questions that show a difference of {label} with probability {plan.power:g}"
    return Grid(title, header, rows, _note(plan))


def _note(plan: PowerPlan) -> str:
    sentences = [
        f"Paired two-sided test at {plan.alpha:g}, questions of the same kind. n show: the "
        "smallest difference that the n questions of these runs show."
    ]
    assumed = sorted({pair.correlation for pair in plan.pairs if pair.correlation is not None})
    if assumed:
        sentences.append(
            f"From one run alone the two runs' values of a question are assumed to correlate by "
            f"{assumed[0]:g} (--correlation); name a second run to know."
        )
    if any(pair.variance == 0 for pair in plan.pairs):
        sentences.append(
            "-: no question tells these runs apart, so nothing is known of the variance."
        )
    return " ".join(sentences)


def _csv_rows(plan: PowerPlan) -> Iterator[list[object]]:
    """One line for each pair and difference."""
    for pair in plan.pairs:
        for difference, needed in zip(plan.differences, pair.needed, strict=True):
            yield [
                pair.dataset, pair.learned_from, plan.metric, pair.n, pair.variance,
                pair.correlation, plan.power, plan.alpha, difference, needed,
            ]  # fmt: skip

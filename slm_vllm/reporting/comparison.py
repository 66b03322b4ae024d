"""Runs compared question by question: the figures behind `slm-vllm compare`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.errors import ConfigError, DataError
from slm_vllm.json_text import as_mapping, as_number
from slm_vllm.nearest import nearest
from slm_vllm.reporting.alignment import AlignedRuns, align
from slm_vllm.reporting.config_diff import Difference, config_differences
from slm_vllm.reporting.context_effect import ContextEffect, context_effects
from slm_vllm.reporting.numeric_floor import floor_notes
from slm_vllm.rundir.reading import RunData
from slm_vllm.scoring.intervals import Mean, MeanEstimate, estimate_mean
from slm_vllm.scoring.metrics import JUDGED, METRICS, SEARCHED, described
from slm_vllm.scoring.paired import PairedComparison, holm

# That of `experiment.seed`, so that means are those of `results.json`.
SEED = 42


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One run of a dataset's table.

    Attributes:
        name: Of the run, unique in the comparison.
        path: Its folder.
        model: Its model.
        mode: Its mode.
        retriever: Name of its retriever, None if it used none.
        mean: Of the metric, over the compared questions.
        questions_per_second: As measured by the run, None if it was not.
        tokens_per_second: New tokens, likewise.
        peak_rss: Resident memory of the process tree in MiB.
        peak_gpu: GPU memory in MiB.
        judged: A judge's figures, where one graded the run's answers.
    """

    name: str
    path: Path
    model: str
    mode: str
    retriever: str | None
    mean: MeanEstimate
    questions_per_second: float | None
    tokens_per_second: float | None
    peak_rss: float | None
    peak_gpu: float | None
    judged: Mapping[str, Mean]


@dataclass(frozen=True, slots=True)
class BaselinePair:
    """A run against the baseline of its dataset.

    Attributes:
        run: Name of the run.
        paired: The figures.
        p_holm: The permutation p-value, adjusted for all pairs of the comparison.
        mcnemar_p_holm: That of McNemar's test, likewise; None where it does not apply.
    """

    run: str
    paired: PairedComparison
    p_holm: float
    mcnemar_p_holm: float | None


@dataclass(frozen=True, slots=True)
class DatasetComparison:
    """All figures over one dataset.

    Attributes:
        dataset: Its name.
        n_questions: Compared questions, unscored ones included.
        baseline: Name of the run the others are compared with.
        runs: One entry for each run.
        pairs: One for each run but the baseline.
        effects: What context did, for each run that has some and a run to compare with.
        notes: What the reader should know.
    """

    dataset: str
    n_questions: int
    baseline: str
    runs: tuple[RunFigures, ...]
    pairs: tuple[BaselinePair, ...]
    effects: tuple[ContextEffect, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole comparison.

    Attributes:
        metric: The metric compared.
        names: Of all runs; the positions in `differences` are theirs.
        datasets: One entry for each dataset.
        differences: Settings that are not the same in all runs.
    """

    metric: str
    names: tuple[str, ...]
    datasets: tuple[DatasetComparison, ...]
    differences: tuple[Difference, ...]

    @property
    def n_pairs(self) -> int:
        """Size of the family of tests that Holm's correction is over."""
        return sum(len(dataset.pairs) for dataset in self.datasets)


def compare_runs(
    runs: Sequence[RunData],
    metric: str = "token_recall",
    *,
    baseline: Path | None = None,
    intersect: bool = False,
    allow_different: bool = False,
) -> Comparison:
    """Compares runs with a baseline, dataset by dataset.

    In a dataset that the baseline does not belong to, the run with the same model, mode and
    retriever takes its place, else the first one.

    Args:
        runs: Finished runs, with the columns of `alignment.COLUMNS` and the metric.
        metric: One of `scoring.metrics.METRICS`, or a grade of a judge.
        baseline: Folder of one of the runs; None for the first.
        intersect: Compare on shared questions where question sets differ.
        allow_different: Go on where prompts or dataset hashes differ.

    Raises:
        ConfigError: Unknown metric, nothing to compare, or runs that differ where they must not.
        DataError: A run cannot be compared.
    """
    check_metric(metric)
    named = with_unique_names(runs)
    groups: dict[str, list[RunData]] = {}
    for run in named:
        groups.setdefault(str(run.results["dataset"]), []).append(run)
    if all(len(group) < 2 for group in groups.values()):
        raise ConfigError(_nothing_to_compare(named, groups))
    chosen = _find_baseline(named, baseline)
    datasets = [
        _compare_dataset(
            align(group, metric, intersect=intersect, allow_different=allow_different),
            _baseline_among(group, chosen),
            metric,
        )
        for group in groups.values()
    ]
    return Comparison(
        metric=metric,
        names=tuple(run.name for run in named),
        datasets=tuple(_adjusted(datasets)),
        differences=tuple(config_differences(named)),
    )


def check_metric(metric: str) -> None:
    """Raises ConfigError for a metric that predictions do not have."""
    grades = [name for name, one in JUDGED.items() if one.is_binary]
    valid = [*METRICS, *grades, *SEARCHED]
    if metric in JUDGED and metric not in valid:
        raise ConfigError(
            f"--metric {metric}: is a ratio of a whole run, and runs are paired by question. "
            f"Compare them by {', '.join(grades)}: the table then shows it too"
        )
    if metric not in valid:
        raise ConfigError(f"--metric {metric}: there is no such metric. {nearest(metric, valid)}")


def with_unique_names(runs: Sequence[RunData]) -> list[RunData]:
    """Runs of one name in several places are named by the ends of their paths that differ."""
    names = [run.name for run in runs]
    paths = [run.path.resolve() for run in runs]
    longest = max((len(path.parts) for path in paths), default=0)
    for n_parts in range(2, longest + 1):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else "/".join(path.parts[-n_parts:])
            for name, path in zip(names, paths, strict=True)
        ]
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def _nothing_to_compare(runs: Sequence[RunData], groups: Mapping[str, object]) -> str:
    if not runs:
        return "there is no run; a comparison needs at least two"
    if len(runs) == 1:
        return f"there is one run only ({runs[0].name}); a comparison needs at least two"
    return (
        f"each of these {len(runs)} runs is the only one on its dataset "
        f"({', '.join(groups)}); a comparison needs two on the same"
    )


def _find_baseline(runs: Sequence[RunData], path: Path | None) -> RunData:
    if path is None:
        return runs[0]
    for run in runs:
        if run.path.resolve() == path.resolve():
            return run
    raise ConfigError(f"the baseline {path} is not among the runs")


def _baseline_among(group: Sequence[RunData], chosen: RunData) -> int:
    for number, run in enumerate(group):
        if run is chosen:
            return number
    for number, run in enumerate(group):
        if _role(run) == _role(chosen):
            return number
    return 0


def _role(run: RunData) -> tuple[object, ...]:
    return tuple(run.results.get(key) for key in ("model", "mode", "retriever"))


def _compare_dataset(aligned: AlignedRuns, baseline: int, metric: str) -> DatasetComparison:
    pairs: list[BaselinePair] = []
    floors: list[str] = []
    for number, run in enumerate(aligned.runs):
        if number == baseline:
            continue
        paired = aligned.paired(number, baseline, is_binary=described(metric).is_binary, seed=SEED)
        if not paired.difference.n:
            raise DataError(
                f"{run.path} and {aligned.runs[baseline].path} have no question that is scored "
                "in both"
            )
        pairs.append(BaselinePair(run.name, paired, math.nan, None))
        floors += floor_notes(run, aligned.runs[baseline], paired.difference, metric)
    effects, notes = context_effects(aligned, seed=SEED)
    return DatasetComparison(
        dataset=aligned.dataset,
        n_questions=aligned.values.shape[1],
        baseline=aligned.runs[baseline].name,
        runs=tuple(
            _figures(run, aligned.values[number]) for number, run in enumerate(aligned.runs)
        ),
        pairs=tuple(pairs),
        effects=tuple(effects),
        notes=(*aligned.notes, *floors, *notes),
    )


def _figures(run: RunData, values: np.ndarray[Any, np.dtype[np.float64]]) -> RunFigures:
    throughput, memory = as_mapping(run.results["throughput"]), run.memory or {}
    retriever = run.results.get("retriever")
    return RunFigures(
        name=run.name,
        path=run.path,
        model=str(run.results["model"]),
        mode=str(run.results["mode"]),
        retriever=None if retriever is None else str(retriever),
        mean=estimate_mean(pl.Series(values[~np.isnan(values)]), seed=_seed(run)),
        questions_per_second=as_number(throughput.get("questions_per_second")),
        tokens_per_second=as_number(throughput.get("completion_tokens_per_second")),
        peak_rss=as_number(memory.get("peak_rss")),
        peak_gpu=as_number(memory.get("peak_gpu")),
        judged={} if run.judgement is None else run.judgement["metrics"],
    )


def _seed(run: RunData) -> int:
    seed = as_mapping(run.config.get("experiment")).get("seed")
    return seed if isinstance(seed, int) and seed >= 0 else SEED


def _adjusted(datasets: Sequence[DatasetComparison]) -> list[DatasetComparison]:
    """Corrects the p-values for the number of pairs in the whole comparison."""
    pairs = [pair for dataset in datasets for pair in dataset.pairs]
    tests = [pair.paired.mcnemar for pair in pairs]
    p_values = iter(holm([pair.paired.p_value for pair in pairs]))
    mcnemar = iter(holm([math.nan if test is None else test.p_value for test in tests]))
    adjusted = []
    for dataset in datasets:
        corrected = []
        for pair in dataset.pairs:
            p, exact = next(p_values), next(mcnemar)
            corrected.append(replace(pair, p_holm=p, mcnemar_p_holm=as_number(exact)))
        adjusted.append(replace(dataset, pairs=tuple(corrected)))
    return adjusted

"""A comparison as text: terminal, Markdown, CSV, LaTeX, JSON.

All five are made from the same few grids of cells, so that none shows what another lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from slm_vllm.amounts import counted
from slm_vllm.json_text import as_number
from slm_vllm.reporting.comparison import BaselinePair, Comparison, DatasetComparison, RunFigures
from slm_vllm.reporting.context_effect import ContextEffect
from slm_vllm.reporting.estimates import estimate_text, metric_text, p_text
from slm_vllm.reporting.grids import TEXT_FORMATS, Grid, as_csv, as_text
from slm_vllm.scoring.metrics import JUDGED, described

FORMATS = (*TEXT_FORMATS, "csv", "json")
_CSV_COLUMNS = (
    "dataset", "run", "model", "mode", "retriever", "metric", "mean", "ci95_low", "ci95_high", "n",
    "questions_per_second", "tokens_per_second", "peak_rss_mib", "peak_gpu_mib", "baseline",
    "difference", "difference_ci95_low", "difference_ci95_high", "p_value", "p_holm", "wins",
    "ties", "losses", "mcnemar_p_value", "mcnemar_p_holm",
)  # fmt: skip


def _grids(comparison: Comparison) -> list[Grid]:
    """The tables of a comparison: for each dataset runs, pairs and effects, then settings."""
    grids = []
    for dataset in comparison.datasets:
        grids.append(_runs_grid(comparison, dataset))
        if comparison.metric in JUDGED:
            grids.append(_judged_grid(dataset))
        if dataset.pairs:
            grids.append(_pairs_grid(comparison, dataset))
        if dataset.effects:
            grids.append(_effects_grid(dataset))
    if comparison.differences:
        grids.append(_settings_grid(comparison))
    return grids


def render(comparison: Comparison, form: str) -> str:
    """The whole comparison in one of `FORMATS`."""
    if form == "json":
        return json.dumps(comparison_json(comparison), ensure_ascii=False, indent=2)
    if form == "csv":
        return as_csv(_CSV_COLUMNS, _csv_rows(comparison))
    return as_text(_grids(comparison), form)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one JSON object."""
    return {
        "metric": comparison.metric,
        "unit": described(comparison.metric).unit,
        "datasets": [_dataset_json(dataset) for dataset in comparison.datasets],
        "differences": [
            {
                "key": difference.key,
                "values": [
                    {"value": value, "runs": [comparison.names[i] for i in runs]}
                    for value, runs in difference.values
                ],
            }
            for difference in comparison.differences
        ],
    }


def _dataset_json(dataset: DatasetComparison) -> dict[str, Any]:
    return {
        "dataset": dataset.dataset,
        "n_questions": dataset.n_questions,
        "baseline": dataset.baseline,
        "runs": [_run_json(run) for run in dataset.runs],
        "pairs": [
            {
                "run": pair.run,
                **pair.paired.to_json(),
                "p_holm": as_number(pair.p_holm),
                "mcnemar_p_holm": pair.mcnemar_p_holm,
            }
            for pair in dataset.pairs
        ],
        "context": [_effect_json(effect) for effect in dataset.effects],
        "notes": list(dataset.notes),
    }


def _run_json(run: RunFigures) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "model": run.model,
        "mode": run.mode,
        "retriever": run.retriever,
        **run.mean.to_json(),
        "questions_per_second": run.questions_per_second,
        "tokens_per_second": run.tokens_per_second,
        "peak_rss_mib": run.peak_rss,
        "peak_gpu_mib": run.peak_gpu,
        **({"judged": dict(run.judged)} if run.judged else {}),
    }


def _effect_json(effect: ContextEffect) -> dict[str, Any]:
    return {
        "run": effect.run,
        "closed_book": effect.closed_book,
        "oracle": effect.oracle,
        "oracle_gap": None if effect.oracle_gap is None else effect.oracle_gap.to_json(),
        "changes": [{**asdict(one), "gain": one.gain.to_json()} for one in effect.changes],
    }


def _runs_grid(comparison: Comparison, dataset: DatasetComparison) -> Grid:
    label = described(comparison.metric).label
    header = (
        "run", "model", "mode", label, "n", "questions/s", "tokens/s", "peak memory",
    )  # fmt: skip
    rows = tuple(
        (
            run.name,
            run.model,
            run.mode if run.retriever is None else f"{run.mode} ({run.retriever})",
            estimate_text(run.mean),
            str(run.mean.n),
            _rounded(run.questions_per_second, 1),
            _rounded(run.tokens_per_second, 0),
            _memory(run),
        )
        for run in dataset.runs
    )
    note = " ".join(dataset.notes)
    return Grid(
        f"{dataset.dataset}: {counted(dataset.n_questions, 'question')}", header, rows, note
    )


def _judged_grid(dataset: DatasetComparison) -> Grid:
    header = ("run", *(one.label for one in JUDGED.values()), "n")
    rows = tuple(
        (
            run.name,
            *(metric_text(run.judged.get(name)) for name in JUDGED),
            str(run.judged["judge_correct"]["n"]) if run.judged else "-",
        )
        for run in dataset.runs
    )
    note = "Of all graded answers of each run; 95 % bootstrap intervals over questions."
    return Grid(f"{dataset.dataset}: graded by a judge", header, rows, note)


def _pairs_grid(comparison: Comparison, dataset: DatasetComparison) -> Grid:
    header = ["run", "difference", "p", "win/tie/loss"]
    many = comparison.n_pairs > 1
    if many:
        header.insert(3, "p (Holm)")
    with_mcnemar = any(pair.paired.mcnemar is not None for pair in dataset.pairs)
    if with_mcnemar:
        header.append("McNemar p (Holm)" if many else "McNemar p")
    rows = tuple(_pair_row(pair, many, with_mcnemar) for pair in dataset.pairs)
    note = "Paired by question; 95 % bootstrap interval; p of a sign-flip permutation test."
    if any(pair.paired.is_always_valid for pair in dataset.pairs):
        note += (
            " *: a run was stopped when its figures were seen, for which these do not hold. Shown "
            "are its 95 % confidence sequence and p-value, valid at any look."
        )
    return Grid(f"{dataset.dataset}: against {dataset.baseline}", tuple(header), rows, note)


def _pair_row(pair: BaselinePair, many: bool, with_mcnemar: bool) -> tuple[str, ...]:
    paired = pair.paired
    mark = "*" if paired.is_always_valid else ""
    difference = f"{estimate_text(paired.difference, signed=True)}{mark}"
    cells = [pair.run, difference, p_text(paired.p_value)]
    if many:
        cells.append(p_text(pair.p_holm))
    cells.append(f"{paired.wins}/{paired.ties}/{paired.losses}")
    if with_mcnemar:
        exact = None if paired.mcnemar is None else paired.mcnemar.p_value
        shown = pair.mcnemar_p_holm if many else exact
        cells.append("-" if shown is None else p_text(shown))
    return tuple(cells)


def _effects_grid(dataset: DatasetComparison) -> Grid:
    header = (
        "run", "questions", "n", "gain over closed book", "right closed book", "destroyed",
        "gained", "oracle gap",
    )  # fmt: skip
    rows = tuple(row for effect in dataset.effects for row in _effect_rows(effect))
    note = (
        "hit: a passage with an answer went into the prompt. destroyed: right without context, "
        "wrong with it; gained: the other way round."
    )
    if any(effect.is_always_valid for effect in dataset.effects):
        note += " *: the confidence sequence of a run that was stopped."
    return Grid(f"{dataset.dataset}: what context did", header, rows, note)


def _effect_rows(effect: ContextEffect) -> list[tuple[str, ...]]:
    gap, mark = "-", "*" * effect.is_always_valid
    if effect.oracle_gap is not None:
        gap = f"{estimate_text(effect.oracle_gap, signed=True)}{mark}"
    if not effect.changes:
        return [(effect.run, "all", "-", "-", "-", "-", "-", gap)]
    return [
        (
            effect.run if number == 0 else "",
            change.questions,
            str(change.n),
            f"{estimate_text(change.gain, signed=True)}{mark}",
            str(change.right_closed_book),
            str(change.destroyed),
            str(change.gained),
            gap if number == 0 else "",
        )
        for number, change in enumerate(effect.changes)
    ]


def _settings_grid(comparison: Comparison) -> Grid:
    rows = tuple(
        (difference.key, value, ", ".join(comparison.names[i] for i in runs))
        for difference in comparison.differences
        for value, runs in difference.values
    )
    return Grid("What differs between the configurations", ("setting", "value", "runs"), rows)


def _csv_rows(comparison: Comparison) -> Iterator[list[object]]:
    """One line for each run."""
    for dataset in comparison.datasets:
        pairs = {pair.run: pair for pair in dataset.pairs}
        for run in dataset.runs:
            mean = run.mean
            yield [
                dataset.dataset, run.name, run.model, run.mode, run.retriever, comparison.metric,
                mean.mean, mean.low, mean.high, mean.n, run.questions_per_second,
                run.tokens_per_second, run.peak_rss, run.peak_gpu, dataset.baseline,
                *_csv_pair(pairs.get(run.name)),
            ]  # fmt: skip


def _csv_pair(pair: BaselinePair | None) -> list[object]:
    if pair is None:
        return [None] * 10
    paired, difference = pair.paired, pair.paired.difference
    exact = None if paired.mcnemar is None else paired.mcnemar.p_value
    return [
        difference.mean, difference.low, difference.high, paired.p_value, pair.p_holm,
        paired.wins, paired.ties, paired.losses, exact, pair.mcnemar_p_holm,
    ]  # fmt: skip


def _rounded(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _memory(run: RunFigures) -> str:
    if run.peak_rss is None:
        return "-"
    gpu = "" if run.peak_gpu is None else f", GPU {run.peak_gpu:,.0f}"
    return f"{run.peak_rss:,.0f}{gpu} MiB"

"""Loads finished runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.errors import DataError
from slm_vllm.monitoring.usage import Memory
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import Manifest, Results
from slm_vllm.rundir.files import (
    damaged,
    read_manifest,
    read_memory,
    read_results,
    read_settings,
)
from slm_vllm.rundir.judgement import (
    Judgement,
    current_judgement,
    judge_text,
    read_grades,
    read_judgement,
)
from slm_vllm.rundir.lookup import why_unfinished
from slm_vllm.rundir.predictions import (
    predictions_columns,
    predictions_schema,
    read_predictions,
)
from slm_vllm.rundir.remarks import remarks
from slm_vllm.scoring.grades import grade_columns
from slm_vllm.scoring.intervals import estimate_mean
from slm_vllm.scoring.metrics import JUDGED, MAIN, METRICS, SEARCHED
from slm_vllm.scoring.normalize import SCORING_VERSION
from slm_vllm.scoring.samples import score_rows

_REQUIRED_RESULTS = ("model", "dataset", "mode", "metrics", "counts", "throughput")


@dataclass(frozen=True, slots=True)
class RunData:
    """A finished run.

    Attributes:
        path: Its folder.
        name: The folder's name.
        config: `config.yaml`, as the version that ran it wrote it.
        manifest: `manifest.json`.
        results: `results.json`.
        memory: `memory_usage.json`, None where the run has none.
        predictions: `predictions.parquet`, one row for each question.
        note: Remarks for the reader: what was recomputed, where it is from; "" for none.
        judgement: `judgement.json`, None where its answers were not judged. Its figures are among
            those of `results`, its grades among the columns of `predictions`.
    """

    path: Path
    name: str
    config: dict[str, Any]
    manifest: Manifest
    results: Results
    memory: Memory | None
    predictions: pl.DataFrame
    note: str = ""
    judgement: Judgement | None = None

    def __repr__(self) -> str:
        recall = self.results.get("token_recall")
        return (
            f"<RunData {self.name}: {self.predictions.height:,} questions, "
            f"token recall {_rounded(recall)}, {self.path}>"
        )


def load_run(path: Path, columns: Sequence[str] | None = None) -> RunData:
    """Reads a finished run.

    Where the run was scored by other definitions than today's, or before a metric was added, its
    metrics are computed from its predictions.

    Args:
        path: A run folder.
        columns: Columns of the predictions to read, None for all; contexts are most of the file.

    Raises:
        DataError: The run is not finished, or a file of it is damaged.
        StorageError: A file of it may not be read.
    """
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder")
    if (problem := why_unfinished(path)) is not None:
        raise DataError(
            f"{path}: the run is not finished ({problem}). `slm-vllm runs show {path}` says how to "
            "resume it; until then leave it out"
        )
    results, manifest, config = read_results(path), read_manifest(path), read_settings(path)
    assert results is not None and manifest is not None and config is not None
    for key in _REQUIRED_RESULTS:
        if key not in results:
            raise damaged(path / names.RESULTS, f"it has no '{key}'")
    judgement = current_judgement(path)
    grades = _grades(path, judgement, columns)
    wanted = _all_columns(path) if columns is None else columns
    own = [name for name in wanted if name not in grades and name not in SEARCHED]
    predictions, results, note = _scored_today(path, results, config, own)
    searches = _searches(path, [name for name in wanted if name in SEARCHED])
    notes = [*remarks(manifest, results), *filter(None, [note])]
    if judgement is not None:
        results = {**results, "metrics": {**results["metrics"], **judgement["metrics"]}}
        notes.append(f"judged by {judge_text(judgement)}")
    return RunData(
        path=path,
        name=path.resolve().name,
        config=config,
        manifest=manifest,
        results=results,
        memory=read_memory(path),
        predictions=predictions.with_columns(*grades.get_columns(), *searches.get_columns()),
        note="; ".join(notes),
        judgement=judgement,
    )


def _all_columns(path: Path) -> list[str]:
    """Those of a run today, and those that a run of another version has beside them."""
    present = predictions_columns(path / names.PREDICTIONS)
    return list(dict.fromkeys([*predictions_schema(), *present]))


def _grades(path: Path, judgement: Judgement | None, columns: Sequence[str] | None) -> pl.DataFrame:
    """The columns of a judge's grades that are wanted.

    Raises:
        DataError: Some are asked for, and the run was not judged.
    """
    asked = [name for name in columns or () if name in JUDGED]
    if judgement is None:
        if not asked:
            return pl.DataFrame()
        why = "its answers are no longer those that were judged"
        raise DataError(
            f"{path}: {'it was not judged' if read_judgement(path) is None else why}, so it has no "
            f"{asked[0]}. `slm-vllm judge {path} --model MODEL` grades its answers"
        )
    found = read_grades(path).select(grade_columns())
    return found if columns is None else found.select(asked)


def _searches(path: Path, asked: Sequence[str]) -> pl.DataFrame:
    """The figures of a search that are wanted, null in rows that cannot be judged so.

    Raises:
        DataError: Some are asked for, and the run has none of them.
    """
    if not asked:
        return pl.DataFrame()
    search = read_predictions(path / names.PREDICTIONS, ("search",))["search"]
    found = search.str.json_decode(pl.Struct(dict.fromkeys(asked, pl.Float64))).struct.unnest()
    for name in asked:
        if found[name].is_null().all():
            why = "searched nothing" if search.is_null().all() else "was not judged by that"
            raise DataError(f"{path}: it has no {name}, for it {why}. Leave it out")
    return found


def _scored_today(
    path: Path, results: Results, config: Mapping[str, Any], wanted: Sequence[str]
) -> tuple[pl.DataFrame, Results, str]:
    """Columns of the predictions and results by today's definitions; what the reader should know.

    The note is "" where the run was scored by them.
    """
    file = path / names.PREDICTIONS
    present = predictions_columns(file)
    if _is_scored_today(results, present):
        return read_predictions(file, wanted), results, ""
    scored = [name for name in ("prediction", "answers", "samples") if name in present]
    scores = score_rows(read_predictions(file, scored)).select(*METRICS)
    others = read_predictions(file, [name for name in wanted if name not in METRICS])
    return others.with_columns(scores).select(wanted), *_rescored(results, scores, config)


def _is_scored_today(results: Results, present: Collection[str]) -> bool:
    return results.get("scoring_version", 1) == SCORING_VERSION and all(
        metric in present and metric in results["metrics"] for metric in METRICS
    )


def _rescored(
    results: Results, scores: pl.DataFrame, config: Mapping[str, Any]
) -> tuple[Results, str]:
    """Results with the metrics of `scores`, and what the reader should know."""
    experiment = config.get("experiment")
    seed = experiment.get("seed") if isinstance(experiment, dict) else None
    seed = seed if isinstance(seed, int) and seed >= 0 else 0
    estimates = {name: estimate_mean(scores[name], seed=seed).to_json() for name in METRICS}
    mean, before = estimates[MAIN]["mean"], results.get("token_recall")
    unscored = scores[MAIN].null_count()
    counts = {**results["counts"], "scored": scores.height - unscored, "unscored": unscored}
    version = results.get("scoring_version", 1)
    note = ""
    if version != SCORING_VERSION:
        note = (
            f"rescored from its predictions by version {SCORING_VERSION} of what a word is, not "
            f"{version} as in its files (token recall {_rounded(before)} then, {_rounded(mean)} now"
        )
        note += "; search figures as they were)" if results.get("retrieval") else ")"
    found: Results = {
        **results,
        "token_recall": mean,
        "metrics": estimates,
        "counts": counts,
        "scoring_version": SCORING_VERSION,
    }
    return found, note


def _rounded(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f}"

"""Finished runs as data: found by name, path, glob or sweep folder, and read from their files."""

from __future__ import annotations

import contextlib
import glob
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from slm_vllm.errors import ConfigError, DataError
from slm_vllm.nearest import nearest
from slm_vllm.scoring.answers import METRICS, score_answers
from slm_vllm.scoring.intervals import estimate_mean
from slm_vllm.scoring.metrics import MAIN
from slm_vllm.scoring.normalize import SCORING_VERSION

log = logging.getLogger(__name__)

_STATE, _RESULTS, _PREDICTIONS = "state.json", "results.json", "predictions.parquet"
# What every reader of predictions relies on; a subset of `runs.results.PREDICTIONS_SCHEMA`. Metrics
# are not in it: those that a run lacks are computed from its predictions.
_REQUIRED_COLUMNS = pl.Schema(
    {
        "question_id": pl.String(),
        "question": pl.String(),
        "answers": pl.List(pl.String),
        "prediction": pl.String(),
        "n_passages_used": pl.Int64(),
        "error": pl.String(),
        "search": pl.String(),
    }
)
_REQUIRED_RESULTS = ("model", "dataset", "mode", "metrics", "counts", "throughput")


@dataclass(frozen=True, slots=True)
class RunData:
    """A finished run.

    Attributes:
        path: Its folder.
        name: The folder's name.
        config: `config.yaml`.
        manifest: `manifest.json`.
        results: `results.json`.
        memory: `memory_usage.json`, None where the run has none.
        predictions: `predictions.parquet`, one row for each question.
        note: What was computed anew, "" for nothing.
    """

    path: Path
    name: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    results: dict[str, Any]
    memory: dict[str, Any] | None
    predictions: pl.DataFrame
    note: str = ""


def load_run(path: Path, columns: Sequence[str] | None = None) -> RunData:
    """Reads a finished run.

    Where the run was scored by other definitions than today's, or before a metric was added, its
    metrics are computed from its predictions.

    Args:
        path: A run folder.
        columns: Columns of the predictions to read, None for all; contexts are most of the file.

    Raises:
        DataError: The run is not finished, or a file of it is missing, damaged or of another
            layout.
    """
    if (problem := _unfinished(path)) is not None:
        raise DataError(
            f"{path}: the run is not finished ({problem}). `slm-vllm runs show {path}` says how to "
            "go on with it; until then leave it out"
        )
    results = _read_json(path / _RESULTS)
    for key in _REQUIRED_RESULTS:
        if key not in results:
            raise _damaged(path / _RESULTS, f"it has no '{key}'")
    config = _read_yaml(path / "config.yaml")
    file = path / _PREDICTIONS
    schema = _checked_schema(file)
    note = ""
    if _is_scored_today(results, schema):
        predictions = _read_predictions(file, columns)
    else:
        scores = score_answers(_read_predictions(file, ("prediction", "answers"))).select(METRICS)
        others = [name for name in columns or schema if name not in METRICS]
        predictions = _read_predictions(file, others).with_columns(scores)
        predictions = predictions.select(columns or [*others, *METRICS])
        results, note = _rescored(results, scores, config)
    memory_file = path / "memory_usage.json"
    return RunData(
        path=path,
        name=path.resolve().name,
        config=config,
        manifest=_read_json(path / "manifest.json"),
        results=results,
        memory=_read_json(memory_file) if memory_file.exists() else None,
        predictions=predictions,
        note=note,
    )


def find_runs(patterns: Sequence[str], output_dir: Path) -> list[Path]:
    """The run folders that are meant, each once, in the order they are named in.

    Of a glob or a sweep folder, runs that are not finished are left out with a warning; a run
    that is named itself is kept, so that reading it says what is wrong.

    Args:
        patterns: Names under `output_dir`, paths, globs of either, or folders that hold run
            folders (sweeps).
        output_dir: Where run folders are kept.

    Raises:
        ConfigError: Nothing matches a pattern.
        DataError: What matches is a sweep or a glob of which no run is finished.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in _matches(pattern, output_dir):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def is_run_folder(path: Path) -> bool:
    """Whether a run was ever started in this folder, or its results were copied there."""
    return path.is_dir() and any(
        (path / name).exists() for name in (_STATE, "config.hash", _RESULTS)
    )


def _matches(pattern: str, output_dir: Path) -> list[Path]:
    places = [output_dir / pattern, Path(pattern)] if pattern else []
    for place in places:
        if is_run_folder(place):
            return [place]
    for place in places:
        if place.is_dir() and (runs := _run_folders(place)):
            return _finished(runs, pattern)
    if glob.has_magic(pattern):
        for place in places:
            hits = [Path(hit) for hit in sorted(glob.glob(str(place)))]
            runs = [run for hit in hits for run in _run_folders(hit)]
            if runs:
                return _finished(runs, pattern)
    raise ConfigError(_no_match(pattern, output_dir))


def _run_folders(path: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs directly in it."""
    if is_run_folder(path):
        return [path]
    if not path.is_dir():
        return []
    return [child for child in sorted(path.iterdir()) if is_run_folder(child)]


def _finished(runs: list[Path], pattern: str) -> list[Path]:
    problems = {run: _problem(run) for run in runs}
    finished = [run for run in runs if problems[run] is None]
    if not finished:
        raise DataError(f"'{pattern}': none of its {len(runs)} runs is finished")
    for run in runs:
        if problems[run] is not None:
            log.warning("%s is left out: it is not finished (%s)", run, problems[run])
    return finished


def _problem(run: Path) -> str | None:
    try:
        return _unfinished(run)
    except DataError as error:
        return str(error)


def _unfinished(path: Path) -> str | None:
    """Why a run is not finished, None if it is."""
    if (path / _STATE).exists():
        # Copied results may lack the state; where there is one, it counts: a run that was taken
        # up again still has the files of its earlier end.
        phase = _read_json(path / _STATE).get("phase")
        if phase != "finished":
            return f"its state is '{phase}'"
    for name in (_RESULTS, _PREDICTIONS, "config.yaml", "manifest.json"):
        if not (path / name).exists():
            return f"there is no {name}"
    return None


def _no_match(pattern: str, output_dir: Path) -> str:
    names = [child.name for child in _children(output_dir)]
    hint = nearest(pattern, names) if names else "There is none in it; see --output-dir"
    return f"'{pattern}': no run folder or sweep of that name in {output_dir} or here. {hint}"


def _children(output_dir: Path) -> list[Path]:
    return _run_folders(output_dir) if output_dir.is_dir() else []


def _is_scored_today(results: Mapping[str, Any], schema: pl.Schema) -> bool:
    return results.get("scoring_version", 1) == SCORING_VERSION and all(
        schema.get(metric) == pl.Float64() for metric in METRICS
    )


def _rescored(
    results: Mapping[str, Any], scores: pl.DataFrame, config: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Results with the metrics of `scores`, and what the reader should know."""
    experiment = config.get("experiment")
    seed = experiment.get("seed") if isinstance(experiment, dict) else None
    estimates = {
        name: estimate_mean(scores[name], seed=seed if isinstance(seed, int) else 0).to_json()
        for name in METRICS
    }
    mean, before = estimates[MAIN]["mean"], results.get(MAIN)
    unscored = scores[MAIN].null_count()
    counts = {**results["counts"], "scored": scores.height - unscored, "unscored": unscored}
    version = results.get("scoring_version", 1)
    note = ""
    if version != SCORING_VERSION:
        note = (
            f"scored by version {version} of what a word is; its metrics are computed anew from "
            f"its predictions by version {SCORING_VERSION} (token recall {before}, now {mean})"
        )
        if results.get("retrieval"):
            note += ", its retrieval figures are as they were"
    found = {**results, MAIN: mean, "metrics": estimates, "counts": counts}
    return {**found, "scoring_version": SCORING_VERSION}, note


def _checked_schema(path: Path) -> pl.Schema:
    with _damage_told(path):
        schema = pl.scan_parquet(path, glob=False).collect_schema()
    for name, dtype in _REQUIRED_COLUMNS.items():
        if schema.get(name) != dtype:
            found = schema.get(name, "missing")
            raise _damaged(path, f"column '{name}' is {found}, not {dtype}")
    return schema


def _read_predictions(path: Path, columns: Sequence[str] | None) -> pl.DataFrame:
    with _damage_told(path):
        return pl.read_parquet(path, glob=False, columns=None if columns is None else list(columns))


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        # A damaged file makes polars panic in places; the panic is no exception of Python's kind.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _damaged(path, reason) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no JSON object")
    return content


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _damaged(path, " ".join(str(error).split())) from None
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no mapping")
    return content


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: cannot be read ({reason}). Giving the command of the run again writes it anew "
        "from the journal"
    )

"""Writes a run of the earlier scripts as a current run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from slm_vllm.adopt.checkout import OldCheckout
from slm_vllm.adopt.old_runs import PREDICTION, UNKNOWN, OldRun
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.errors import SlmVllmError
from slm_vllm.rundir import names
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import JOURNAL_SCHEMA
from slm_vllm.rundir.predictions import predictions_schema
from slm_vllm.rundir.state import RunState, now
from slm_vllm.runs.results import RunSummary
from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.metrics import MAIN
from slm_vllm.scoring.normalize import SCORING_VERSION

_NEVER_KNOWN = ("prompt", "generation", "model revision", "versions", "speed")
_SEED = 42


@dataclass(frozen=True)
class TakenRun:
    """What became of a run.

    Attributes:
        folder: Where it is now.
        rows: Its predictions.
        matched: Those whose question is in the dataset, and so have its question_id and answers.
        before: Token recall as the earlier scripts had it.
        recall: Token recall as it is measured today.
    """

    folder: Path
    rows: int
    matched: int
    before: float | None
    recall: float | None


def take_run(checkout: OldCheckout, run: OldRun, folder: Path) -> TakenRun:
    """Rescores the predictions of a run and writes them with what is known of it.

    Args:
        checkout: Where it comes from; its data says which question is which.
        run: The run.
        folder: Its run folder to be.

    Raises:
        StorageError: It cannot be written, or a run goes on in it.
    """
    known = _questions(checkout, run.dataset)
    entries = [_entry({"question_id": n, **row}, run, known) for n, row in enumerate(run.rows)]
    matched = sum(found for _, found in entries)
    frame = score_answers(pl.DataFrame([row for row, _ in entries], schema=_unscored()))
    frame = frame.select(predictions_schema().names())
    results = _results(run, frame)
    with closing(RunFolder(folder)) as written:
        written.lock()
        with written.replacing(names.PREDICTIONS) as path:
            frame.write_parquet(path)
        written.write_text(names.CONFIG, yaml.safe_dump(_settings(run, folder), sort_keys=False))
        written.write_json(names.MANIFEST, _manifest(run, matched))
        written.write_json(names.MEMORY, _memory(run))
        written.write_json(names.RESULTS, results)
        RunState(written, run.name).update("finished", total=frame.height, done=frame.height)
    return TakenRun(folder, frame.height, matched, run.token_recall, results["token_recall"])


def _results(run: OldRun, frame: pl.DataFrame) -> dict[str, Any]:
    """The content of `results.json`, from the predictions as they are scored today."""
    summary = RunSummary()
    summary.add(frame)
    estimates = {name: tally.estimate(seed=_SEED) for name, tally in summary.scores.items()}
    metrics = {name: estimate.to_json() for name, estimate in estimates.items()}
    counts = ("total", "scored", "unscored", "errors")
    return {
        "name": run.name,
        "model": run.model,
        "dataset": run.dataset,
        "mode": run.mode,
        "retriever": UNKNOWN if run.context == "retriever" else None,
        "scoring_version": SCORING_VERSION,
        "token_recall": metrics[MAIN]["mean"],
        "num_examples": frame.height,
        "duration_seconds": run.duration,
        "metrics": metrics,
        "retrieval": {},
        "counts": {name: summary.counts[name] for name in counts},
        "timing": {},
        "throughput": dict.fromkeys(
            (
                "questions_per_second",
                "completion_tokens_per_second",
                "prompt_tokens_per_second",
            )
        ),
    }


def _questions(checkout: OldCheckout, name: str) -> dict[str, list[tuple[str, list[str]]]]:
    """Id and answers of each question of a dataset, by its text; empty where it is not found."""
    file = checkout.dataset_file(name)
    known: dict[str, list[tuple[str, list[str]]]] = {}
    if file is None:
        return known
    try:
        for frame in open_dataset(None, file).scan(with_documents=False):
            rows = frame.select("question", "question_id", "answers").iter_rows()
            for question, question_id, answers in rows:
                known.setdefault(question.strip(), []).append((question_id, answers))
    except SlmVllmError:
        return {}
    return known


def _unscored() -> pl.Schema:
    return pl.Schema({k: v for k, v in JOURNAL_SCHEMA.items() if k != "key"})


def _entry(
    row: Mapping[str, Any], run: OldRun, known: dict[str, list[tuple[str, list[str]]]]
) -> tuple[dict[str, Any], bool]:
    """A row of the predictions, and whether its question is in the dataset."""
    question = str(row.get("question") or "")
    question_id, answers = str(row.get("question_id")), _texts(row.get("ground_truth"))
    # A question that stands twice is taken once for each of its rows.
    if of_dataset := known.get(question.strip()):
        question_id, answers = of_dataset.pop(0)
        matched = True
    else:
        matched = False
    contexts = [] if run.context == "none" else _texts(row.get("contexts"))
    metadata = row.get("metadata")
    return {
        "question_id": question_id,
        "question": question,
        "answers": answers,
        "prediction": str(row.get(PREDICTION) or ""),
        "contexts": [_passage(text, rank) for rank, text in enumerate(contexts, 1)],
        "context_type": run.context,
        "n_passages_used": len(contexts),
        "metadata": json.dumps(metadata, ensure_ascii=False, default=str) if metadata else None,
    }, matched


def _passage(text: str, rank: int) -> dict[str, Any]:
    return {"passage_id": "", "document_id": "", "title": "", "text": text, "rank": rank}


def _texts(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(part) for part in value if part is not None]
    return [] if value is None else [str(value)]


def _settings(run: OldRun, folder: Path) -> dict[str, Any]:
    return {
        "model": {"name": run.model},
        "dataset": {"name": run.dataset},
        "experiment_mode": {"name": run.mode, "context": run.context},
        "experiment": {"name": run.name, "output_dir": str(folder.parent)},
    }


def _manifest(run: OldRun, matched: int) -> dict[str, Any]:
    known = {"model": run.model, "dataset": run.dataset, "mode": run.mode, "context": run.context}
    return {
        "created": now(),
        "model": {"name": run.model},
        "dataset": {},
        "retriever": UNKNOWN if run.context == "retriever" else None,
        "engine": {},
        "device": {},
        "git": None,
        "adopted": {
            "from": str(run.folder),
            "token_recall": run.token_recall,
            "rows": len(run.rows),
            "rows_of_dataset": matched,
            "unknown": [*(k for k, v in known.items() if v == UNKNOWN), *_NEVER_KNOWN],
        },
    }


def _memory(run: OldRun) -> dict[str, Any]:
    peaks = {"peak_rss": run.peak("cpu", "rss", "ram"), "peak_gpu": run.peak("gpu", "cuda")}
    return {"unit": "MiB", **peaks, "phases": {}, "samples": []}

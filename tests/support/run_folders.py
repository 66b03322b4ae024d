"""Run folders as `eval` leaves them, made without an engine."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from slm_vllm.rundir.fingerprint import digest
from slm_vllm.rundir.predictions import PREDICTIONS_SCHEMA
from slm_vllm.scoring.answers import METRICS
from slm_vllm.scoring.intervals import estimate_mean
from slm_vllm.scoring.normalize import SCORING_VERSION

_CONTEXT = {"no_context": "none", "oracle": "oracle", "retriever": "retriever"}
_PROMPT = {"name": "short_answer", "system": "Answer.", "question_template": "{question}"}


def make_run(
    path: Path,
    *,
    model: str = "demo",
    dataset: str = "demo",
    mode: str = "no_context",
    retriever: str = "bm25",
    rows: Sequence[Mapping[str, Any]],
    config: Mapping[str, Mapping[str, Any]] | None = None,
    dataset_hash: str | None = None,
    phase: str = "finished",
    questions_per_second: float | None = 12.5,
    peak_rss: float = 2048.0,
    peak_gpu: float | None = None,
) -> Path:
    """Writes a finished run.

    Args:
        path: The run folder to make; its name is the run's.
        model: Name of the model.
        dataset: Name of the dataset.
        mode: One of no_context, oracle, retriever.
        retriever: Name of the retriever.
        rows: Columns of the predictions; what is left out has a plausible value, metrics are 0.
            `None` for a metric means unscored. `search` may be a dict.
        config: Sections with values that replace the usual ones.
        dataset_hash: Of the manifest; that of the dataset's name by default.
        phase: Of `state.json`.
        questions_per_second: Of `results.json`.
        peak_rss: In MiB.
        peak_gpu: In MiB.
    """
    path.mkdir(parents=True)
    frame = pl.DataFrame(
        [_row(row, number, _CONTEXT[mode]) for number, row in enumerate(rows)],
        schema=PREDICTIONS_SCHEMA,
    )
    settings = _config(path, model, dataset, mode, retriever, config or {})
    results = _results(path.name, settings, frame, questions_per_second)
    manifest = {
        "slm_vllm": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "config_hash": digest(settings),
        "prompt_hash": digest({k: v for k, v in settings["prompt"].items() if k != "name"}),
        "model": {"name": model, "repo": f"org/{model}", "revision": "main"},
        "dataset": {
            "path": f"/data/{dataset}.jsonl",
            "bytes": 1000,
            "sha256": dataset_hash or digest(dataset),
        },
        "engine": {"name": "vllm", "vllm": "0.32.0"},
        "device": {"kind": "cpu", "name": "Some CPU", "memory_bytes": 1 << 34},
        "git": None,
        "packages": {},
    }
    memory = {
        "unit": "MiB",
        "peak_rss": peak_rss,
        "peak_gpu": peak_gpu,
        "phases": {
            "load": {"peak_rss": peak_rss / 2, "peak_gpu": peak_gpu},
            "generate": {"peak_rss": peak_rss, "peak_gpu": peak_gpu},
        },
        "samples": [
            {"seconds": float(second), "phase": name, "rss": share * peak_rss, "gpu": peak_gpu}
            for second, (name, share) in enumerate([("load", 0.25), ("load", 0.5), ("generate", 1)])
        ],
    }
    state = {"name": path.name, "pid": 1, "pid_started": 0.0, "phase": phase, "total": len(rows)}
    frame.write_parquet(path / "predictions.parquet")
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (path / "config.hash").write_text(manifest["config_hash"] + "\n")
    for name, content in (
        ("manifest.json", manifest),
        ("results.json", results),
        ("memory_usage.json", memory),
        ("state.json", state),
    ):
        (path / name).write_text(json.dumps(content))
    return path


def _row(row: Mapping[str, Any], number: int, context: str) -> dict[str, Any]:
    used = {
        "question_id": f"q{number}",
        "question": f"What is number {number}?",
        "answers": [f"answer {number}"],
        "prediction": f"answer {number}",
        "completion": None,
        "contexts": [],
        "context_type": context,
        "n_passages_used": 0 if context == "none" else 3,
        "truncated": False,
        "unterminated_thinking": False,
        "finish_reason": "stop",
        "n_prompt_tokens": 50,
        "n_completion_tokens": 5,
        "error": None,
        "search": None,
        "metadata": None,
        **dict.fromkeys(METRICS, 0.0),
        **row,
    }
    if isinstance(used["search"], dict):
        used["search"] = json.dumps(used["search"])
    return used


def _config(
    path: Path,
    model: str,
    dataset: str,
    mode: str,
    retriever: str,
    changes: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {
        "model": {"name": model, "path": f"org/{model}", "dtype": "auto"},
        "dataset": {"name": dataset, "kind": "qa_pairs", "path": f"{dataset}.jsonl"},
        "retriever": {"name": retriever, "kind": "bm25", "top_k": 3, "options": {"k1": 1.5}},
        "experiment_mode": {"name": mode, "context": _CONTEXT[mode], "max_samples": None},
        "prompt": copy.deepcopy(_PROMPT),
        "generation": {"max_new_tokens": 32, "temperature": 0.0},
        "hardware": {"name": "cpu", "dtype": "auto"},
        "engine": {"name": "vllm", "max_in_flight": None},
        "experiment": {"name": path.name, "output_dir": str(path.parent), "seed": 42},
    }
    for section, values in changes.items():
        settings[section] = {**settings[section], **values}
    return settings


def _results(
    name: str, settings: dict[str, dict[str, Any]], frame: pl.DataFrame, rate: float | None
) -> dict[str, Any]:
    estimates = {metric: estimate_mean(frame[metric]).to_json() for metric in METRICS}
    unscored = frame["token_recall"].null_count()
    searches = [json.loads(text) for text in frame["search"].drop_nulls()]
    names = sorted({key for search in searches for key in search})
    with_search = settings["experiment_mode"]["context"] == "retriever"
    return {
        "name": name,
        "model": settings["model"]["name"],
        "dataset": settings["dataset"]["name"],
        "mode": settings["experiment_mode"]["name"],
        "retriever": settings["retriever"]["name"] if with_search else None,
        "scoring_version": SCORING_VERSION,
        "token_recall": estimates["token_recall"]["mean"],
        "num_examples": frame.height,
        "duration_seconds": 60.0,
        "metrics": estimates,
        "retrieval": {
            key: estimate_mean(pl.Series([s[key] for s in searches if key in s])).to_json()
            for key in names
        },
        "counts": {
            "total": frame.height,
            "scored": frame.height - unscored,
            "unscored": unscored,
            "errors": frame["error"].count(),
            "truncated": 0,
            "unterminated_thinking": 0,
            "without_passage": int((frame["n_passages_used"] == 0).sum()),
            "rejected": 0,
            "resumed": 0,
            "prompt_tokens": int(frame["n_prompt_tokens"].sum()),
            "completion_tokens": int(frame["n_completion_tokens"].sum()),
        },
        "timing": {"load": 10.0, "generate": 50.0, "score": 0.1, "overlapped": {}},
        "throughput": {
            "questions_per_second": rate,
            "completion_tokens_per_second": None if rate is None else rate * 5,
            "prompt_tokens_per_second": None if rate is None else rate * 50,
        },
    }

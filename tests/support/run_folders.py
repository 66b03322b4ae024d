"""Run folders as `eval` leaves them, made without an engine by the code that writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl

from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config
from slm_vllm.judging.verdict import grade_counts, grades_frame
from slm_vllm.models.resolve import ResolvedModel
from slm_vllm.monitoring import memory
from slm_vllm.monitoring.device import Device
from slm_vllm.rundir import names
from slm_vllm.rundir.fingerprint import digest
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.judgement import ANSWER_COLUMNS, answers_digest
from slm_vllm.rundir.predictions import predictions_schema, read_predictions, sampled_schema
from slm_vllm.rundir.state import RunState
from slm_vllm.runs.manifest import build_manifest
from slm_vllm.runs.results import RunSummary, RunTiming, build_results
from slm_vllm.scoring.grades import grade_estimates
from slm_vllm.scoring.metrics import METRICS

_CONTEXT = {"no_context": "none", "oracle": "oracle", "retriever": "retriever"}
_PHASES = {"load": 10.0, "generate": 50.0, "score": 0.1}


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
    settings = _config(path, model, dataset, mode, retriever, config or {})
    frame = pl.DataFrame(
        [_row(row, number, _CONTEXT[mode]) for number, row in enumerate(rows)],
        schema=sampled_schema() if any("samples" in row for row in rows) else predictions_schema(),
    )
    summary = RunSummary()
    summary.add(frame)
    folder = RunFolder(path)
    folder.open(settings)
    folder.write_config(settings)
    frame.write_parquet(path / names.PREDICTIONS)
    identity = {
        "path": f"/data/{dataset}.jsonl",
        "bytes": 1000,
        "sha256": dataset_hash or digest(dataset),
    }
    manifest = build_manifest(
        settings,
        ResolvedModel(Path(f"/models/{model}"), "hub", f"org/{model}", "main"),
        Device("cpu", "Some CPU", memory_bytes=1 << 34),
        identity,
        {"name": "vllm", "vllm": "0.32.0"},
    )
    folder.write_json(names.MANIFEST, manifest)
    folder.write_json(names.MEMORY, _memory(peak_rss, peak_gpu))
    rate = questions_per_second
    results = build_results(
        settings,
        summary,
        rejected=0,
        timing=RunTiming(_PHASES, {}),
        throughput={
            "questions_per_second": rate,
            "completion_tokens_per_second": None if rate is None else rate * 5,
            "prompt_tokens_per_second": None if rate is None else rate * 50,
        },
        resumed=0,
        from_cache=0,
    )
    folder.write_json(names.RESULTS, results)
    RunState(folder, path.name).update(phase, total=frame.height, done=frame.height)
    folder.close()
    return path


def mark_stopped(path: Path, *, against: str, of: int, decision: str) -> None:
    """Makes a run one that ended before it had asked all its questions."""
    results = json.loads((path / names.RESULTS).read_text())
    results["until"] = {
        "against": against,
        "metric": "token_recall",
        "margin": 0.01,
        "level": 0.05,
        "decision": decision,
        "questions": results["counts"]["total"],
        "of": of,
        "looks": 1,
        "difference": 0.1,
        "interval": [0.05, 0.15],
    }
    (path / names.RESULTS).write_text(json.dumps(results))


def write_judgement(path: Path, grades: Sequence[str | None]) -> None:
    """Writes what a judge leaves of a run with these grades, one for each row."""
    rows = read_predictions(path / names.PREDICTIONS, ANSWER_COLUMNS)
    verdicts = [
        {"grade": grade, "undecided": None if grade else "tie", "votes": [grade] if grade else []}
        for grade in grades
    ]
    frame = grades_frame(rows["question_id"], verdicts)
    frame.write_parquet(path / names.GRADES)
    counts = grade_counts(frame)
    content = {
        "judge": {"model": "judge", "prompt_version": 1, "votes": 1, "fingerprint": "f"},
        "created": "2026-01-31T00:00:00+00:00",
        "slm_vllm": "0.2.0",
        "answers": answers_digest(rows),
        "counts": counts,
        "metrics": {name: one.to_json() for name, one in grade_estimates(counts).items()},
    }
    (path / names.JUDGEMENT).write_text(json.dumps(content))


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


@cache
def _usual() -> dict[str, dict[str, Any]]:
    words = ["model=custom", "model.name=x", "model.path=x", "dataset=custom", "dataset.name=x"]
    words += ["dataset.path=x.jsonl", "hardware=cpu", "generation.max_new_tokens=32"]
    usual: dict[str, dict[str, Any]] = compose_config(words).model_dump(mode="json")
    return usual


def _config(
    path: Path,
    model: str,
    dataset: str,
    mode: str,
    retriever: str,
    changes: Mapping[str, Mapping[str, Any]],
) -> Config:
    own: dict[str, Mapping[str, Any]] = {
        "model": {"name": model, "path": f"org/{model}"},
        "dataset": {"name": dataset, "kind": "qa_pairs", "path": f"{dataset}.jsonl"},
        "retriever": {"name": retriever, "kind": retriever, "top_k": 3},
        "experiment_mode": {"name": mode, "context": _CONTEXT[mode]},
        "experiment": {"name": path.name, "output_dir": str(path.parent)},
    }
    content: dict[str, Any] = dict(_usual())
    for sections in (own, changes):
        for section, values in sections.items():
            content[section] = {**content[section], **values}
    return Config.model_validate(content)


def _memory(peak_rss: float, peak_gpu: float | None) -> dict[str, Any]:
    """What a sampler reports of a process that grows while it answers."""
    with mock.patch.object(memory, "tree_rss") as tree_rss:
        sampler = memory.MemorySampler()
        sampler._gpu = mock.Mock()
        sampler._gpu.used.return_value = None if peak_gpu is None else int(peak_gpu * memory.MIB)
        for phase, share in (("load", 0.25), ("load", 0.5), ("generate", 1.0)):
            tree_rss.return_value = (int(share * peak_rss * memory.MIB), None)
            with sampler.phase(phase):
                pass
        return sampler.report()

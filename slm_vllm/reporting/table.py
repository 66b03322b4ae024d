"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slm_vllm.amounts import format_rate
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.rundir.remarks import repeated, sampled, stopped, without_context
from slm_vllm.scoring.metrics import Described, in_tables, judged_in_tables
from slm_vllm.scoring.normalize import SCORING_VERSION
from slm_vllm.text_table import text_table


def results_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One line for each run: metrics with their 95 % intervals, rows, rates.

    Args:
        results: Contents of `results.json`.
    """
    shown = [*in_tables(), *judged_in_tables(results)]
    header = ["run", *(metric.label for metric in shown), "hit@k", "n", "questions/s"]
    notes = [note for result in results if (note := _note(result))]
    lines = (_line(result, shown) for result in results)
    return "\n".join([text_table(header, lines), *notes])


def _line(result: Mapping[str, Any], shown: Sequence[Described]) -> list[str]:
    rate = result["throughput"]["questions_per_second"]
    return [
        str(result["name"]),
        *(metric_text(result["metrics"].get(metric.name)) for metric in shown),
        _hits(result),
        str(result["counts"]["scored"]),
        "-" if rate is None else format_rate(rate),
    ]


def _hits(result: Mapping[str, Any]) -> str:
    """Share of questions with an answer among the first three passages, whatever is asked with."""
    found = result["retrieval"].get("answer_hit@3")
    return "-" if found is None else f"@3 {found['mean']:.3f}"


def _note(result: Mapping[str, Any]) -> str:
    counts = result["counts"]
    worth_saying = {
        "errors": "failed",
        "empty": "answered with nothing",
        "unscored": "without a usable answer to score against",
        "rejected": "rejected (see rejected.jsonl)",
        "truncated": "with a prompt cut to fit",
        "unterminated_thinking": "ended while thinking (raise generation.max_new_tokens)",
    }
    parts = [f"{counts[name]} {text}" for name, text in worth_saying.items() if counts.get(name)]
    if count := without_context(result):
        parts.append(f"{count} asked without context")
    if counts["total"] and not counts["scored"]:
        parts.append("no answer of the dataset has a word, so no metric can judge it")
    if (version := result.get("scoring_version", 1)) != SCORING_VERSION:
        parts.append(
            f"scored by version {version} of what a word is, not {SCORING_VERSION} (compare and "
            "report rescore it)"
        )
    parts += filter(None, [stopped(result), sampled(result), repeated(result)])
    return f"{result['name']}: {', '.join(parts)}" if parts else ""

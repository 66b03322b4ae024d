"""`bench throughput` results as a table, of one machine or several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slm_vllm.errors import DataError, reason_of
from slm_vllm.text_table import text_table

_HEADER = (
    "model",
    "engine",
    "dtype",
    "prompts",
    "questions/s",
    "min-max",
    "prompt tok/s",
    "new tok/s",
    "start s",
    "first s",
    "p50 s",
    "p99 s",
    "KV tokens",
    "CPU MiB",
    "GPU MiB",
    "J/1000 q",
)


def read_results(path: Path) -> dict[str, Any]:
    """A file that `bench throughput --json` was written to.

    Raises:
        DataError: It is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as results ({error})") from None
    if not isinstance(content, dict) or not {"machine", "rows"} <= set(content):
        raise DataError(
            f"{path}: holds no results. Make such a file with: "
            "slm-vllm bench throughput --models demo --json > FILE"
        )
    return content


def merge(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of several results, each with the name of its machine; by model, then machine.

    Args:
        results: Contents of results files.
    """
    rows = [{"machine": one["machine"]["name"], **row} for one in results for row in one["rows"]]
    order = list(dict.fromkeys(row["model"] for row in rows))
    return sorted(rows, key=lambda row: order.index(row["model"]))


def throughput_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each model, engine and machine; the machine is named where there are several.

    Args:
        rows: What `merge` gives.
    """
    several = len({row["machine"] for row in rows}) > 1
    header = ["machine", *_HEADER] if several else list(_HEADER)
    lines = []
    notes = []
    for row in rows:
        name = [str(row["machine"])] if several else []
        if "error" in row:
            notes.append(f"{row['model']} on {row['engine']} failed: {row['error']}")
            continue
        lines.append([*name, *_cells(row)])
    return "\n".join([*([text_table(header, lines)] if lines else []), *notes])


def _cells(row: Mapping[str, Any]) -> list[str]:
    rate = row["questions_per_second"]
    latency = row["latency_seconds"] or {}
    first = row["first_answer_seconds"]
    return [
        str(row["model"]),
        _engine(row),
        str(row["dtype"]),
        _workload(row),
        _number(rate["median"]),
        f"{_number(rate['min'])}-{_number(rate['max'])}",
        _number(row["prompt_tokens_per_second"]["median"]),
        _number(row["new_tokens_per_second"]["median"]),
        _number(row["startup_seconds"]["total"]),
        _number(first["median"] if first else None),
        _number(latency.get("p50")),
        _number(latency.get("p99")),
        _whole(row["kv_cache_tokens"]),
        _whole(row["peak_rss_mib"]),
        _whole(row["peak_gpu_mib"]),
        _whole(row["joules_per_1000_questions"]),
    ]


def _engine(row: Mapping[str, Any]) -> str:
    several = row.get("engine_details", {}).get("replicas", 1)
    return f"{row['engine']} x {several}" if several > 1 else str(row["engine"])


def _workload(row: Mapping[str, Any]) -> str:
    """How many prompts, and their mean length with that of the answers."""
    questions, rate = row["questions"], row["questions_per_second"]["median"]
    new = row["new_tokens_per_second"]["median"] / rate if rate else 0
    return f"{questions:,} x {row['prompt_tokens'] / questions:.0f}+{new:.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"

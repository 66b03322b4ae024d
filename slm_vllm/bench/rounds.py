"""Joins several measurements of one engine into a row, and compares two rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slm_vllm.bench.statistics import spread

_SPREADS = (
    "seconds",
    "questions_per_second",
    "prompt_tokens_per_second",
    "new_tokens_per_second",
    "first_answer_seconds",
)
_PEAKS = ("peak_rss_mib", "peak_gpu_mib", "other_cores_busy")
_BUSY = 0.1
"""Share of the cores that other work may take before engines are no longer compared."""


def joined(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of an engine that was measured several times, each time in a new process.

    Repeats of all rounds count alike, peaks are the highest; what there is once in a round (the
    start, which finds more in caches each time, latencies, details) is that of the last one.

    Args:
        rounds: Rows of `bench.measure`; one with an `error` stands for all.
    """
    failed = next((row for row in rounds if "error" in row), None)
    if failed is not None:
        return dict(failed)
    row = dict(rounds[-1])
    for name in _SPREADS:
        if row[name] is not None:
            row[name] = spread([value for one in rounds for value in one[name]["all"]])
    for name in _PEAKS:
        row[name] = max((one[name] for one in rounds if one[name] is not None), default=None)
    joules = [one["joules_per_1000_questions"] for one in rounds]
    known = [value for value in joules if value is not None]
    row["joules_per_1000_questions"] = round(sum(known) / len(known), 1) if known else None
    row["startup_totals"] = [one["startup_seconds"]["total"] for one in rounds]
    return row


def verdicts(rows: Sequence[Mapping[str, Any]], cores: int) -> list[str]:
    """How the first engine of each model does beside the others, in words.

    Args:
        rows: Of one machine; the engines of a model in the order they were asked for.
        cores: Of the machine.
    """
    lines = []
    measured = [row for row in rows if "error" not in row]
    for model in dict.fromkeys(row["model"] for row in measured):
        first, *others = [row for row in measured if row["model"] == model]
        lines += [_verdict(first, other, cores) for other in others]
    return lines


def _verdict(one: Mapping[str, Any], other: Mapping[str, Any], cores: int) -> str:
    names = f"{one['model']}: {one['engine']} against {other['engine']}"
    busy = max(row.get("other_cores_busy") or 0.0 for row in (one, other))
    if busy > _BUSY * cores:
        return (
            f"{names}: not compared, for other work took {busy:.1f} of {cores} cores. Measure "
            "again on a quiet machine"
        )
    a, b = one["questions_per_second"], other["questions_per_second"]
    ratio = f"{a['median'] / b['median']:.2f}x"
    if a["max"] >= b["min"] and b["max"] >= a["min"]:
        return f"{names}: {ratio} by medians, but repeats of the two overlap: not told apart"
    return f"{names}: {ratio} [{a['min'] / b['max']:.2f}, {a['max'] / b['min']:.2f}]"

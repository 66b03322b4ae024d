"""Memory over time, from what a run recorded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slm_vllm.figures.kinds import OverTime, Strip, Track


def memory_over_time(strips: Sequence[Strip]) -> OverTime:
    """The figure of some runs' memory."""
    return OverTime(
        "memory-over-time",
        "Memory over time",
        "From the start of the process, shaded by phase; modes of one command share it.",
        "memory",
        "GiB",
        strips,
    )


def memory_strip(
    memory: Mapping[str, Any] | None, label: str, colour: str = "series-0"
) -> Strip | None:
    """One run's strip; None where nothing was sampled.

    Args:
        memory: The content of `memory_usage.json`, in MiB.
        label: Name of the run.
        colour: Its colour.
    """
    samples: Sequence[Mapping[str, Any]] = (memory or {}).get("samples", [])
    tracks: list[Track] = []
    for key, name in (("gpu", "GPU"), ("rss", "processes")):
        points = [(s["seconds"], s[key] / 1024) for s in samples if s.get(key) is not None]
        if points:
            tracks.append(Track(name, points, colour, dashed=bool(tracks)))
    return Strip(label, tracks, _phases(samples)) if tracks else None


def _phases(samples: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """First and last second of each phase, in order; each ends where the next one begins."""
    starts: dict[str, float] = {}
    for sample in samples:
        starts.setdefault(sample["phase"], sample["seconds"])
    ends = [*list(starts.values())[1:], max((s["seconds"] for s in samples), default=0.0)]
    return {name: (start, end) for (name, start), end in zip(starts.items(), ends, strict=True)}

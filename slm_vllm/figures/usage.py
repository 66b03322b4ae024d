"""Memory over time, from what a run recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from slm_vllm.figures.kinds import OverTime, Strip, Track

# What a sample is called that was taken outside of all phases.
_NO_PHASE = "start"


def memory_over_time(strips: Sequence[Strip]) -> OverTime:
    """The figure of some runs' memory."""
    return OverTime(
        "memory-over-time",
        "Memory over time",
        "From the start of the process, shaded by phase; unshaded: other runs of the command.",
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


def _phases(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """What was done from when to when: a sample is taken at both ends of a phase.

    What lies between them belongs to other runs of the process, which are left out of the samples.
    """
    phases = []
    for name, stretch in groupby(samples, key=lambda sample: str(sample["phase"])):
        seconds = [float(sample["seconds"]) for sample in stretch]
        if name != _NO_PHASE:
            phases.append((name, seconds[0], seconds[-1]))
    return phases

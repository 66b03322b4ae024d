"""What a run says of its memory: the content of `memory_usage.json`."""

from __future__ import annotations

from typing import Any, TypedDict


class MemoryPeak(TypedDict, total=False):
    """Highest memory of a phase, in MiB; None without a GPU."""

    peak_rss: float
    peak_gpu: float | None


class MemorySample(TypedDict, total=False):
    """Memory at one moment, in MiB, and the seconds since sampling began."""

    seconds: float
    phase: str
    rss: float
    gpu: float | None


class Memory(TypedDict, total=False):
    """`memory_usage.json`, in MiB.

    Attributes:
        peak_rss: Of the process tree without the publisher; memory that forked processes share
            counts once.
        publisher: Of the process that tells the tracker.
        replicas: What engines elsewhere say of themselves.
    """

    unit: str
    peak_rss: float
    peak_gpu: float | None
    publisher: MemoryPeak | None
    phases: dict[str, MemoryPeak]
    samples: list[MemorySample]
    replicas: Any

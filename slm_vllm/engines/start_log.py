"""Reads the durations of a start from the engine's log: vLLM's own lines, one of `fork_server`."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SECONDS = r"(\d+(?:\.\d+)?)\s*s"

# Lines of vLLM 0.9 to 0.32; what a version does not say is missing from what is found.
_PARTS = {
    "imports": re.compile(rf"^Imports took {_SECONDS}"),
    "model": re.compile(rf"Initializing model took {_SECONDS}"),
    "weights": re.compile(rf"Loading weights took {_SECONDS}"),
    # Of the memory (0.9), or a first run of what was compiled (0.26, 0.32).
    "profile": re.compile(
        rf"(?:Memory profiling takes|Initial profiling/warmup run took) {_SECONDS}"
    ),
    "compile": re.compile(rf"torch\.compile (?:takes|took) {_SECONDS}"),
    "capture": re.compile(rf"Graph capturing finished in {_SECONDS}"),
    # Profile, compilation, KV cache, capture and warm-up together.
    "init": re.compile(rf"init engine \(.*\) took {_SECONDS}"),
}


def start_parts(lines: Iterable[str]) -> dict[str, float]:
    """Seconds by part of a start; of several engines the slowest.

    Args:
        lines: Of the log, from where the engine was started on.
    """
    found: dict[str, float] = {}
    for line in lines:
        for part, pattern in _PARTS.items():
            if match := pattern.search(line):
                found[part] = max(found.get(part, 0.0), float(match[1]))
    return found

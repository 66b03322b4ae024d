"""Chooses between a fast start (eager) and fast answers (CUDA graphs).

The figures are of SmolLM2-135M (30 layers) with vLLM 0.26 on an H200: graphs and compilation made
the start 24 s longer with a warm compile cache and 38 to 43 s with a cold one, 14 of them in
preparing inductor's patterns. They took 1 s and 3 s off the answers to 3,610 questions of 32 tokens
in batches of 512, and 1.2 s off those to 3,000. What they save are launches of kernels, so it
grows with the layers and the steps and not with the size of a layer; a large model, whose steps
take longer than their launches, is saved less.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_WARM_SECONDS, _COLD_SECONDS = 24.0, 40.0
_CAPTURE_SECONDS = 10.0  # where nothing is compiled (0.9.2); not measured
_SAVED_SECONDS = 0.00025  # of a step, for each layer; 0.00013, 0.0002 and 0.0004 were seen


@dataclass(frozen=True, slots=True)
class StartChoice:
    """How an engine starts.

    Attributes:
        eager: Without compilation and graphs.
        reason: Why, in words.
    """

    eager: bool
    reason: str


def choose_start(
    wanted: str,
    kind: str,
    *,
    compiles: bool,
    questions: int,
    new_tokens: int,
    batch: int,
    layers: int,
) -> StartChoice:
    """Weighs what graphs save against what they cost.

    Args:
        wanted: "auto", "fast" or "throughput".
        kind: "cpu" or "cuda".
        compiles: Whether this vLLM compiles the model before it captures graphs.
        questions: To be answered; 0 where that is not known.
        new_tokens: Of an answer, at most.
        batch: Sequences in a step.
        layers: Of the model.
    """
    if wanted != "auto":
        return StartChoice(wanted == "fast", f"hardware.start={wanted}")
    if kind == "cpu":
        return StartChoice(True, "on a CPU compiling takes minutes")
    if not questions or not layers:
        return StartChoice(False, "graphs: how much is asked is not known")
    steps = -(-questions // batch) * new_tokens
    saved = steps * layers * _SAVED_SECONDS
    cost = _CAPTURE_SECONDS
    if compiles:
        cost = _WARM_SECONDS if compile_cache_is_warm() else _COLD_SECONDS
    eager = saved < cost
    said = f"graphs would take about {cost:.0f} s to start and save about {saved:.0f} s of answers"
    return StartChoice(eager, f"{'no graphs' if eager else 'graphs'}: {said}")


def compile_cache_is_warm() -> bool:
    """Whether vLLM has compiled anything on this machine; for which model is not looked at."""
    try:
        return any((vllm_cache() / "torch_compile_cache").iterdir())
    except OSError:
        return False


def vllm_cache() -> Path:
    """Where vLLM keeps what it compiled and downloaded."""
    if root := os.environ.get("VLLM_CACHE_ROOT"):
        return Path(root).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vllm"

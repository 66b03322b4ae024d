"""Retries an engine that runs out of memory at its start with less, step by step."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from slm_vllm.amounts import format_memory
from slm_vllm.engines.settings import EngineSettings

MAX_RETRIES = 3
_FEWEST_SEQS = 8
_FEWEST_BATCHED_TOKENS = 2048
_PRINTED_BYTES = 1 << 18

# From vLLM 0.9.2 to 0.33, torch and the kernel driver, in lower case.
_SIGNS = (
    "out of memory",
    "not enough memory",
    "cannot allocate memory",
    "no available memory for the cache blocks",
    "is less than desired",
    "larger than the available kv cache",
    "maximum number of tokens that can be stored in kv cache",
)
_FREE_OF_TOTAL = re.compile(r"free memory on device[^(]*\(([\d.]+)/([\d.]+) GiB\)", re.IGNORECASE)


def is_memory_shortage(message: str) -> bool:
    """Whether an error of the engine's start says that memory is what it lacked."""
    lowered = message.lower()
    return any(sign in lowered for sign in _SIGNS)


def with_less_memory(settings: EngineSettings, message: str) -> tuple[EngineSettings, str] | None:
    """Settings that need less, and what was changed; None where nothing is left to try.

    The length of prompts and answers is never touched: it would change the results.

    Args:
        settings: What was tried.
        message: How it failed.
    """
    arguments = settings.hardware.engine_args
    if settings.device.kind == "cpu" and "kv_cache_memory_bytes" in arguments:
        return None  # the user's own size, which fewer sequences do not change
    found = _FREE_OF_TOTAL.search(message)
    if found:
        free, total = float(found[1]), float(found[2])
        # Some of what is free goes while the engine starts.
        share = int(100 * (free / total - 0.02)) / 100
        if not 0.05 <= share < float(arguments.get("gpu_memory_utilization", 0.9)):
            return None
        return _changed(settings, {"gpu_memory_utilization": share})
    if settings.max_num_seqs <= _FEWEST_SEQS:
        return None
    changes: dict[str, Any] = {"max_num_seqs": max(_FEWEST_SEQS, settings.max_num_seqs // 4)}
    if settings.device.kind == "cuda":
        changes["max_num_batched_tokens"] = max(settings.max_model_len, _FEWEST_BATCHED_TOKENS)
        if "max_num_batched_tokens" in arguments:  # the second time: CUDA graphs go as well
            changes["enforce_eager"] = True
    return _changed(settings, changes)


def _changed(settings: EngineSettings, changes: Mapping[str, Any]) -> tuple[EngineSettings, str]:
    hardware = settings.hardware.model_copy(
        update={"engine_args": {**settings.hardware.engine_args, **changes}}
    )
    text = ", ".join(f"{name}={value}" for name, value in changes.items())
    return dataclasses.replace(settings, hardware=hardware), text


def shortage_advice(settings: EngineSettings) -> str:
    """What the user can set, with the numbers of the last try."""
    return (
        f"It needs more memory than {settings.device.name} has free "
        f"({format_memory(settings.device.memory_bytes)} in all), even with "
        f"hardware.engine_args.max_num_seqs={settings.max_num_seqs}. Lower model.max_model_len "
        f"(now {settings.max_model_len}), choose a smaller or quantized model, or free memory "
        "that other processes use"
    )


class PrintedErrors:
    """What is written to standard error while the block runs, where that is a file.

    An engine in a process of its own prints why it failed; the exception that reaches us only
    says that it did.
    """

    def __enter__(self) -> PrintedErrors:
        self._start = os.fstat(2).st_size
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to undo."""

    def read(self) -> str:
        """The lines that name an error; others speak of memory without lacking it."""
        try:
            with open("/proc/self/fd/2", "rb") as file:
                file.seek(max(self._start, os.fstat(2).st_size - _PRINTED_BYTES))
                text = file.read(_PRINTED_BYTES).decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(line for line in text.splitlines() if "Error" in line)

"""Turns what a user names (model, dataset, modes, ...) into the overrides of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slm_vllm.config.overrides import quoted
from slm_vllm.config.shorthand import (
    corpus_override,
    dataset_override,
    mode_override,
    model_override,
    retriever_override,
)
from slm_vllm.errors import ConfigError

# Settings with a name of their own, and the key that each sets.
KEYS = {
    "engine": "engine.name",
    "base_url": "engine.base_url",
    "api_key_env": "engine.api_key_env",
    "ray_address": "engine.ray_address",
    "replicas": "engine.replicas",
    "gpus_per_replica": "engine.gpus_per_replica",
    "samples": "experiment.max_samples",
    "output_dir": "experiment.output_dir",
    "strict": "experiment.strict",
    "top_k": "retriever.top_k",
    "cache_dir": "cache_dir",
    "against": "experiment.against",
    "until": "experiment.until",
    "margin": "experiment.margin",
}


def split_modes(modes: str) -> list[str]:
    """The parts of `no_context,oracle`.

    Raises:
        ConfigError: One is named twice.
    """
    parts = [part.strip() for part in modes.split(",") if part.strip()]
    if len(set(parts)) != len(parts):
        raise ConfigError(f"--mode {modes}: the same mode twice")
    return parts


def run_words(
    settings: Mapping[str, Any],
    modes: Sequence[str],
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
) -> list[list[str]]:
    """The overrides of each run of a command.

    Args:
        settings: `model`, `dataset`, `corpus`, `retriever` and the names of `KEYS`; None, False and
            empty ones say nothing.
        modes: The modes, one run for each; none: the configuration's own.
        name: Name of the run; with several modes, the part before theirs.
        overrides: Further words, which win.
        config_dir: A folder with configuration groups of the user's.

    Raises:
        ConfigError: Something named does not exist.
    """
    silent = (None, False, ())
    # By identity: 0 equals False and is something said.
    given = {key: v for key, v in settings.items() if not any(v is one for one in silent)}
    words = []
    if "model" in given:
        words += model_override(given["model"], config_dir)
    if "dataset" in given:
        words += dataset_override(given["dataset"], config_dir)
    if "corpus" in given:
        words += corpus_override(given["corpus"], config_dir)
    if "retriever" in given:
        words += retriever_override(given["retriever"], config_dir)
    words += [f"{key}={_word(given[name])}" for name, key in KEYS.items() if name in given]
    runs = []
    for mode in modes or [""]:
        chosen = mode_override(mode, config_dir) if mode else []
        named = []
        if name is not None:
            suffix = f"_{mode}" if len(modes) > 1 else ""
            named = [f"experiment.name={quoted(name + suffix)}"]
        runs.append([*words, *chosen, *named, *overrides])
    return runs


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return quoted(",".join(value))
    return quoted(value) if isinstance(value, str) else str(value)

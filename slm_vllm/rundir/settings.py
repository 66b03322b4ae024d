"""Settings with dotted keys, and which of them separate two runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slm_vllm.config.schema import Config
from slm_vllm.rundir.contents import Manifest
from slm_vllm.rundir.fingerprint import answer_settings

NOT_SET = "(not set)"
# What `answer_settings` holds outside the sections of the configuration.
_PLACES = {
    "context": "experiment_mode.context",
    "served": "engine",
    "endpoint": "engine.endpoint",
    "seed": "experiment.seed",
    "deterministic": "hardware.deterministic",
}

# What of a manifest may leave the answers of an earlier run without use.
_FACTS = (
    "dataset.sha256",
    "dataset.sha256_of_ends",
    "dataset.files",
    "answers.model",
    "answers.dtype",
    "answers.context_limit",
    "answers.index",
    "prompt_date",
)

_HASH_SHOWN = 12


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings with dotted keys; values other than text as JSON."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            text = json.dumps(value, ensure_ascii=False, default=str)
            found[f"{prefix}{key}"] = value if isinstance(value, str) and value else text
    return found


def changed_settings(before: Config, now: Config) -> dict[str, tuple[str, str]]:
    """The settings that make two configurations two runs: before and now, by dotted key."""
    old, new = (
        flat({_PLACES.get(key, key): value for key, value in answer_settings(config).items()})
        for config in (before, now)
    )
    return {
        key: (old.get(key, NOT_SET), new.get(key, NOT_SET))
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    }


def changed_facts(before: Manifest | None, now: Manifest) -> dict[str, tuple[str, str]]:
    """What answers depend on beside their configuration, where it changed: before and now."""
    old, new = flat(before or {}), flat(now)
    return {
        key: (old[key][:_HASH_SHOWN], new[key][:_HASH_SHOWN])
        for key in _FACTS
        if key in old and key in new and old[key] != new[key]
    }

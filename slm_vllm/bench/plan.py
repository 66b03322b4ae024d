"""The description of one measurement, as it is sent to the process that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_vllm.errors import ConfigError

ENGINES = ("slm-vllm", "vllm", "transformers")


@dataclass(frozen=True, slots=True)
class Plan:
    """One model on one engine.

    Attributes:
        model: The model as the user named it.
        words: Overrides that compose its configuration.
        config_dir: A folder with configuration groups of the user.
        engine: "slm-vllm", or a peer: "vllm" (`LLM.generate` with the same engine arguments) or
            "transformers" (`generate` in left-padded batches of 8).
        dummy: Random weights, made from the model's `config.json` alone.
        questions: Prompts in one repeat.
        repeats: Counted repeats; a warm-up goes before them.
        input_len: Length of made-up prompts in tokens; None takes the questions of the dataset.
        output_len: New tokens of each answer to a made-up prompt, whatever the model says.
    """

    model: str
    words: tuple[str, ...]
    config_dir: str | None = None
    engine: str = "slm-vllm"
    dummy: bool = False
    questions: int = 200
    repeats: int = 3
    input_len: int | None = None
    output_len: int | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Takes what JSON makes of the plan's `asdict`."""
        return cls(**{**values, "words": tuple(values["words"])})


def parse_baselines(text: str | None) -> tuple[str, ...]:
    """The engines of a measurement: ours, then the peers asked for.

    Raises:
        ConfigError: There is no such peer.
    """
    wanted = [part.strip() for part in (text or "").split(",") if part.strip()]
    for name in wanted:
        if name not in ENGINES[1:]:
            raise ConfigError(f"--baseline {name}: can be {', '.join(ENGINES[1:])}")
    return ("slm-vllm", *dict.fromkeys(wanted))

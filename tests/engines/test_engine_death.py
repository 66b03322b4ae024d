"""A vLLM engine that dies, whichever of its methods is called next."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slm_vllm.config.schema import GenerationConfig, HardwareConfig
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.errors import EngineDiedError
from slm_vllm.monitoring.device import Device
from slm_vllm.types import GenerationRequest

SETTINGS = EngineSettings(
    model_path=Path("/m"),
    device=Device("cpu", "CPU"),
    hardware=HardwareConfig(name="cpu"),
    generation=GenerationConfig(max_new_tokens=8),
    dtype="float32",
    max_model_len=128,
)


class DeadCore(Exception):
    """As vLLM's `EngineDeadError`: no error of a value."""


class DyingEngine:
    """Takes one request; everything after that meets a dead core."""

    def __init__(self, dies_in: str) -> None:
        self.dies_in, self.taken = dies_in, 0

    def add_request(self, *_: Any) -> None:
        if self.taken and self.dies_in == "add_request":
            raise DeadCore
        self.taken += 1

    def step(self) -> list[Any]:
        if self.dies_in == "step":
            raise DeadCore
        return []

    def abort_request(self, request_ids: list[str]) -> None:
        raise DeadCore  # until 0.10


@pytest.mark.parametrize("method", ["add_request", "step"])
def test_a_dead_engine_is_told_as_such_so_that_it_is_started_again(method: str) -> None:
    engine = VllmEngine(SETTINGS)
    engine._llm = SimpleNamespace(llm_engine=DyingEngine(method))
    engine._prompt_of = list
    with pytest.raises(EngineDiedError, match="died while generating: DeadCore"):
        list(engine.stream([GenerationRequest("a", [1]), GenerationRequest("b", [2])]))

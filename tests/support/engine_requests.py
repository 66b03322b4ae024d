"""What an engine without a model is told and asked."""

from __future__ import annotations

from pathlib import Path

from slm_vllm.config.schema import GenerationConfig, HardwareConfig
from slm_vllm.engines.server_pool import RetryPolicy
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.monitoring.device import Device
from slm_vllm.types import GenerationRequest

SETTINGS = EngineSettings(
    model_path=Path("/m"),
    device=Device("cpu", "CPU"),
    hardware=HardwareConfig(name="cpu"),
    generation=GenerationConfig(max_new_tokens=8),
    dtype="float32",
    max_model_len=128,
    model_names=("tiny",),
)
QUICK = RetryPolicy(
    attempts=4,
    first_delay=0.01,
    longest_delay=0.05,
    probe_delay=0.02,
    longest_probe_delay=0.05,
    patience=2.0,
)


def requests(count: int) -> list[GenerationRequest]:
    said = [[{"role": "user", "content": f"question {i}"}] for i in range(count)]
    return [GenerationRequest(f"r{i}", [i, 7, 7], said[i]) for i in range(count)]

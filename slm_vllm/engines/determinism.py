"""Answers independent of the batch (`hardware.deterministic`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from slm_vllm.config.schema import Config
from slm_vllm.engines.versions import has_batch_invariance
from slm_vllm.errors import ConfigError
from slm_vllm.monitoring.device import Device

VARIABLE = "VLLM_BATCH_INVARIANT"
_KEY = "hardware.deterministic=true"
_WITHOUT = "Without it answers may differ with the batch they were made in"


def check_deterministic(config: Config, device: Device, dtype: str, release: str | None) -> None:
    """Checks that the answers of this engine can be the same in every batch.

    Args:
        config: The run's configuration.
        device: What it runs on.
        dtype: The data type that was chosen.
        release: The installed vLLM.

    Raises:
        ConfigError: They cannot; says what is missing.
    """
    if not config.hardware.deterministic:
        return
    if device.kind == "cpu":
        if dtype != "float32":
            raise ConfigError(
                f"{_KEY}: on a CPU it needs float32, and {dtype} is configured "
                f"(model.dtype, hardware.dtype). {_WITHOUT}"
            )
        return
    capability = device.compute_capability or (0, 0)
    if not has_batch_invariance(release, capability):
        raise ConfigError(
            f"{_KEY}: {device.name} (compute capability {capability[0]}.{capability[1]}) with vLLM "
            f"{release} has no batch-invariant kernels. They need 8.0 and vLLM 0.27. {_WITHOUT}"
        )
    if os.environ.get(VARIABLE, "1") != "1":
        raise ConfigError(f"{_KEY}: the environment says {VARIABLE}={os.environ[VARIABLE]}")


def deterministic_environment(device: Device) -> Mapping[str, str]:
    """What the engine is told; nothing on a CPU, where the data type is enough."""
    return {VARIABLE: "1"} if device.kind == "cuda" else {}


def how(device: Device) -> str:
    """What makes the answers independent of the batch, for the manifest."""
    return "batch-invariant kernels" if device.kind == "cuda" else "float32"

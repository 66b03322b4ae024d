"""Energy that the GPU has used, where NVML counts it (Volta and newer)."""

from __future__ import annotations

from slm_vllm.monitoring.nvml import Nvml


def gpu_joules() -> float | None:
    """Energy since the driver was loaded, None without such a counter."""
    with Nvml() as nvml:
        millijoules = nvml.ask("nvmlDeviceGetTotalEnergyConsumption", nvml.first_gpu())
    return None if millijoules is None else int(millijoules) / 1000

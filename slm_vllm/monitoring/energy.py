"""Energy that the GPU has used (NVML counts it on Volta and newer), and its clock."""

from __future__ import annotations

from slm_vllm.monitoring.nvml import Nvml

_SM_CLOCK = 1  # NVML_CLOCK_SM


def gpu_joules() -> float | None:
    """Energy since the driver was loaded, None without such a counter."""
    with Nvml() as nvml:
        millijoules = nvml.ask("nvmlDeviceGetTotalEnergyConsumption", nvml.first_gpu())
    return None if millijoules is None else int(millijoules) / 1000


def gpu_clock() -> int | None:
    """Clock of the GPU's multiprocessors in MHz, None where it cannot be had."""
    with Nvml() as nvml:
        clock = nvml.ask("nvmlDeviceGetClockInfo", nvml.first_gpu(), _SM_CLOCK)
    return None if clock is None else int(clock)

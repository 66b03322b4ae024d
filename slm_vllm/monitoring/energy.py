"""Energy that the GPU has used, where NVML counts it (Volta and newer)."""

from __future__ import annotations

from slm_vllm.monitoring.device import first_gpu_handle


def gpu_joules() -> float | None:
    """Energy since the driver was loaded, None without such a counter."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(first_gpu_handle(pynvml))) / 1000
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()

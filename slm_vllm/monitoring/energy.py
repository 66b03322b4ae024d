"""Energy that GPUs have used (NVML counts it on Volta and newer), and the clock of one."""

from __future__ import annotations

from collections.abc import Sequence

from slm_vllm.monitoring.nvml import Nvml

_SM_CLOCK = 1  # NVML_CLOCK_SM


def gpu_joules(names: Sequence[str] = ()) -> float | None:
    """Energy since the driver was loaded, None without such a counter.

    Args:
        names: Of the GPUs, as CUDA_VISIBLE_DEVICES has them; all of a GPU counts, whoever used
            it. Empty: the first.
    """
    with Nvml() as nvml:
        gpus = [nvml.gpu_named(name) for name in names] or [nvml.first_gpu()]
        found = [nvml.ask("nvmlDeviceGetTotalEnergyConsumption", gpu) for gpu in gpus]
    return None if None in found else sum(map(int, found)) / 1000


class EnergyMeter:
    """What GPUs use from now on.

    Args:
        gpus: Their names, as for `gpu_joules`; empty: nothing is read.
    """

    def __init__(self, gpus: Sequence[str]) -> None:
        self._gpus = gpus
        self._before = gpu_joules(gpus) if gpus else None

    def joules(self) -> float | None:
        """Used so far, None where it is not counted."""
        if self._before is None or (now := gpu_joules(self._gpus)) is None:
            return None
        return now - self._before


def gpu_clock() -> int | None:
    """Clock of the GPU's multiprocessors in MHz, None where it is not available."""
    with Nvml() as nvml:
        clock = nvml.ask("nvmlDeviceGetClockInfo", nvml.first_gpu(), _SM_CLOCK)
    return None if clock is None else int(clock)

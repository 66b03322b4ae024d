"""NVML of a machine with one GPU, on which this process holds memory."""

from __future__ import annotations

import os
from types import ModuleType, SimpleNamespace


class FakeNvml(ModuleType):
    """Stands for `pynvml`.

    Args:
        faults: What functions raise instead of answering.

    Attributes:
        held: Bytes by process.
    """

    class NVMLError(Exception):
        """What the library's own errors derive from."""

    class NVMLLibraryMismatchError(Exception):
        """Raised where the driver lacks a function; no NVMLError."""

    def __init__(self, **faults: Exception) -> None:
        super().__init__("pynvml")
        self.faults = faults
        self.asked: list[int | str] = []
        self.open = 0
        self.held: dict[int, int | None] = {os.getpid(): 3 << 20, 1: 7 << 20}

    def _fail(self, function: str) -> None:
        if function in self.faults:
            raise self.faults[function]

    def nvmlInit(self) -> None:
        self._fail("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1
        self._fail("nvmlShutdown")

    def nvmlSystemGetDriverVersion(self) -> str:
        self._fail("nvmlSystemGetDriverVersion")
        return "570.1"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        self._fail("nvmlSystemGetCudaDriverVersion")
        return 12080

    def nvmlDeviceGetCount(self) -> int:
        self._fail("nvmlDeviceGetCount")
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._fail("nvmlDeviceGetHandleByIndex")
        self.asked.append(index)
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._fail("nvmlDeviceGetHandleByUUID")
        self.asked.append(uuid)
        return "handle"

    def nvmlDeviceGetName(self, handle: str) -> str:
        self._fail("nvmlDeviceGetName")
        return "NVIDIA GB10"

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:
        self._fail("nvmlDeviceGetCudaComputeCapability")
        return 12, 1

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        self._fail("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(total=64 << 30, free=48 << 30)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self._fail("nvmlDeviceGetTotalEnergyConsumption")
        return 5500

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        self._fail("nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.held.items()]

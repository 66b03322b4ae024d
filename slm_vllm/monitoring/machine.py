"""Current memory and load of the machine and its processes, seen from outside."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psutil

from slm_vllm.monitoring.memory import gpu_memory, tree, tree_rss
from slm_vllm.monitoring.nvml import Nvml
from slm_vllm.monitoring.shared_pages import SharedPages


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What is used of a GPU now.

    Attributes:
        name: As its driver calls it.
        used_bytes: Memory in use, by whomever.
        total_bytes: Its memory.
        busy: Share of the last moments in which it worked, in percent; None if it does not tell.
    """

    name: str
    used_bytes: int
    total_bytes: int
    busy: int | None


@dataclass(frozen=True, slots=True)
class Host:
    """The machine now.

    Attributes:
        used_bytes: Memory that is not available to a new process.
        total_bytes: Its memory.
        load: Processes that run or wait to run, averaged over the last minute.
        cpus: Processors.
        gpus: All that NVML shows.
    """

    used_bytes: int
    total_bytes: int
    load: float
    cpus: int
    gpus: tuple[GpuUse, ...]


class Machine(AbstractContextManager["Machine"]):
    """Looks at this machine while it is open."""

    def __init__(self) -> None:
        self._nvml = Nvml()
        self._gpus = self._nvml.gpus()
        self._shared: defaultdict[int, SharedPages] = defaultdict(SharedPages)

    def __exit__(self, *_: object) -> None:
        self._nvml.close()

    def host(self) -> Host:
        """The machine as it is now."""
        memory = psutil.virtual_memory()
        gpus = tuple(gpu for handle in self._gpus if (gpu := self._gpu(handle)) is not None)
        used = memory.total - memory.available
        return Host(used, memory.total, os.getloadavg()[0], psutil.cpu_count() or 1, gpus)

    def memory_of(self, process: psutil.Process) -> tuple[int, int | None]:
        """Bytes that a process and its descendants hold: of the machine, and of its GPUs."""
        pids = {member.pid for member in tree(process)}
        resident, _ = tree_rss(root=process, shared=self._shared[process.pid])
        return resident, gpu_memory(self._nvml, self._gpus, pids)

    def _gpu(self, handle: object) -> GpuUse | None:
        memory = self._nvml.ask("nvmlDeviceGetMemoryInfo", handle)
        if memory is None:
            return None
        name = self._nvml.ask("nvmlDeviceGetName", handle) or "GPU"
        rates = self._nvml.ask("nvmlDeviceGetUtilizationRates", handle)
        return GpuUse(
            str(name),
            int(memory.total - memory.free),
            int(memory.total),
            None if rates is None else int(rates.gpu),
        )

"""Which device this machine has, found without importing torch.

Used while the configuration is composed, so it must be quick: NVML where it is installed, then
`nvidia-smi`, then the CPU's flags.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from slm_vllm.monitoring.nvml import Nvml, first_visible, visible_names


@dataclass(frozen=True, slots=True)
class Device:
    """The device an engine will run on.

    Attributes:
        kind: "cuda" or "cpu".
        name: The device's own name.
        compute_capability: (major, minor) of a GPU, None for a CPU.
        memory_bytes: Memory of one GPU, or of the host where it has none of its own.
        cpu_flags: Instruction sets of the CPU.
    """

    kind: str
    name: str
    compute_capability: tuple[int, int] | None = None
    memory_bytes: int = 0
    cpu_flags: frozenset[str] = frozenset()

    @property
    def profile(self) -> str:
        """Name of the hardware profile in `configs/hardware/` that fits."""
        if self.compute_capability is None:
            return "cpu"
        if self.compute_capability <= (7, 0):
            return "v100"
        if self.compute_capability < (8, 0):
            return "turing"
        return "ampere" if self.compute_capability < (9, 0) else "hopper"

    @property
    def has_fast_bfloat16(self) -> bool:
        """Whether a CPU multiplies bf16 matrices natively; elsewhere bf16 is emulated."""
        return bool(self.cpu_flags & {"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True, slots=True)
class Gpu:
    """One of the GPUs that CUDA may use.

    Attributes:
        name: Its index or UUID, as CUDA_VISIBLE_DEVICES has it.
        memory_bytes: All of its memory.
        free_bytes: What nobody holds of it now.
    """

    name: str
    memory_bytes: int
    free_bytes: int


def visible_gpus() -> tuple[Gpu, ...]:
    """Those whose memory can be asked for, in the order of CUDA_VISIBLE_DEVICES."""
    found = []
    with Nvml() as nvml:
        for name in visible_names(int(nvml.ask("nvmlDeviceGetCount") or 0)):
            memory = nvml.ask("nvmlDeviceGetMemoryInfo", nvml.gpu_named(name))
            if memory is not None:
                found.append(Gpu(name, int(memory.total), int(memory.free)))
    return tuple(found)


def detect_device() -> Device:
    """The first visible NVIDIA GPU, else the CPU."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() not in ("", "-1"):
        gpu = _gpu_from_nvml() or _gpu_from_nvidia_smi()
        if gpu is not None:
            return gpu
    return cpu_device()


def _gpu_from_nvml() -> Device | None:
    with Nvml() as nvml:
        gpu = nvml.first_gpu()
        name = nvml.ask("nvmlDeviceGetName", gpu)
        capability = nvml.ask("nvmlDeviceGetCudaComputeCapability", gpu)
        memory = nvml.ask("nvmlDeviceGetMemoryInfo", gpu)
    if name is None or capability is None:
        return None
    major, minor = capability
    size = _host_memory() if memory is None else int(memory.total)
    return Device("cuda", str(name), (int(major), int(minor)), size)


def _gpu_from_nvidia_smi() -> Device | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = "--query-gpu=name,compute_cap,memory.total"
    command = [program, query, "--format=csv,noheader,nounits", f"--id={first_visible()}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        name, capability, memory = (part.strip() for part in answer.stdout.split(",")[:3])
        major, minor = capability.split(".")
        # A GPU that shares the host's memory has none of its own to report and says [N/A].
        size = int(memory) << 20 if memory.isdigit() else _host_memory()
        return Device("cuda", name, (int(major), int(minor)), size)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _host_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def cpu_device() -> Device:
    """The CPU of this machine, whatever else it has."""
    name, flags = "CPU", frozenset[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
                break
    except OSError:
        pass
    return Device("cpu", name, None, _host_memory(), flags)

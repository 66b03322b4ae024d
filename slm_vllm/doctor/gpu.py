"""NVIDIA GPUs, their driver, and whether the installed builds support them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from slm_vllm.amounts import format_memory
from slm_vllm.engines.versions import installed_vllm, parse_release
from slm_vllm.extras import engine_extra, install_advice
from slm_vllm.finding import Finding, Status
from slm_vllm.monitoring.device import Device
from slm_vllm.monitoring.nvml import Nvml

_SETUP = "bash scripts/setup.sh installs the set that fits (SLM_VLLM_HARDWARE=cpu|cuda|v100)"


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """What an installed torch was built for.

    Attributes:
        version: With its local part, such as "2.7.0+cu126".
        cuda: CUDA version, None for a build without CUDA.
    """

    version: str
    cuda: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        version: Its own version.
        cuda: The newest CUDA version it can run.
        gpus: GPUs of the machine, visible to a process or not.
        free_bytes: Free memory of the first of them, None where it is not known.
    """

    version: str
    cuda: tuple[int, int]
    gpus: int
    free_bytes: int | None


def read_torch_build() -> TorchBuild | None:
    """Reads torch's own version file; importing torch would take seconds."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    version = re.search(r"^__version__ *= *'([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=]*= *'(\d+)\.(\d+)", text, re.MULTILINE)
    if version is None:
        return None
    return TorchBuild(version[1], (int(cuda[1]), int(cuda[2])) if cuda else None)


def read_driver() -> Driver | None:
    """Asks NVML; None where there is no driver or no NVML."""
    with Nvml() as nvml:
        version = nvml.ask("nvmlSystemGetDriverVersion")
        cuda = nvml.ask("nvmlSystemGetCudaDriverVersion")
        memory = [nvml.ask("nvmlDeviceGetMemoryInfo", gpu) for gpu in nvml.gpus()]
    if version is None or cuda is None:
        return None
    free = int(memory[0].free) if memory and memory[0] is not None else None
    return Driver(str(version), (cuda // 1000, cuda % 1000 // 10), len(memory), free)


def check_device(device: Device, driver: Driver | None) -> list[Finding]:
    """The device a run would use, its profile, and the driver."""
    if device.compute_capability is None:
        return [_no_gpu(device, driver)]
    capability = "{}.{}".format(*device.compute_capability)
    text = (
        f"{device.name}, compute capability {capability}, {format_memory(device.memory_bytes)}, "
        f"profile {device.profile}"
    )
    findings = [Finding("device", "ok", text)]
    if device.compute_capability < (7, 0):
        fix = "Volta (7.0) is the oldest that vLLM runs on; CUDA_VISIBLE_DEVICES= uses the CPU"
        findings = [Finding("device", "fail", text, fix)]
    if driver is None:
        fix = "pip install nvidia-ml-py, or check the driver with nvidia-smi"
        return [*findings, Finding("driver", "warn", "NVML does not answer", fix)]
    cuda = "{}.{}".format(*driver.cuda)
    found = f"{driver.version}, CUDA up to {cuda}, {driver.gpus} GPU(s)"
    findings.append(Finding("driver", "ok", found))
    if driver.free_bytes is not None and device.memory_bytes:
        findings.append(_free_memory(device, driver.free_bytes))
    return findings


def _no_gpu(device: Device, driver: Driver | None) -> Finding:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver is not None and driver.gpus:
        why = f" although the machine has {driver.gpus} GPU(s)"
        fix = (
            f"CUDA_VISIBLE_DEVICES is '{hidden}': unset it to use a GPU"
            if hidden is not None
            else "nvidia-smi should list the GPU with its name, memory and compute capability"
        )
        return Finding("device", "warn", f"CPU is used{why} ({device.name})", fix)
    return Finding("device", "ok", f"no NVIDIA GPU; CPU {device.name}, profile {device.profile}")


def _free_memory(device: Device, free: int) -> Finding:
    share = free / device.memory_bytes
    found = f"{format_memory(free)} of {format_memory(device.memory_bytes)} free"
    if share >= 0.9:
        return Finding("GPU memory", "ok", found)
    fix = (
        "Another process holds memory (nvidia-smi names it); an engine whose cache is not sized "
        "beforehand asks for 90 %: end it, or give "
        f"hardware.engine_args.gpu_memory_utilization={max(share - 0.05, 0.1):.2f}"
    )
    return Finding("GPU memory", "warn", found, fix)


def check_builds(device: Device, driver: Driver | None, torch: TorchBuild | None) -> list[Finding]:
    """Whether the installed vLLM and torch have code for the device."""
    vllm = installed_vllm()
    if vllm is None or torch is None:
        advice = install_advice(engine_extra("vllm", device.profile), "vllm")
        lacking = [name for name, found in (("vllm", vllm), ("torch", torch)) if found is None]
        fix = f"In a checkout {_SETUP}. Elsewhere: {advice}"
        return [Finding(name, "fail", "not installed", fix) for name in lacking]
    return [_check_vllm(device, vllm), _check_torch(device, driver, torch)]


def _check_vllm(device: Device, vllm: str) -> Finding:
    capability = device.compute_capability
    if capability == (7, 0) and parse_release(vllm) >= (0, 20, 0):
        found = f"{vllm}, built without code for compute capability 7.0"
        return Finding("vllm", "fail", found, f"vllm==0.9.2 is the pin for a V100. {_SETUP}")
    if capability == (7, 0) and parse_release(vllm) >= (0, 10, 2):
        found = f"{vllm}, whose V1 engine is slow on compute capability 7.0"
        return Finding("vllm", "warn", found, f"vllm==0.9.2 is the pin for a V100. {_SETUP}")
    if capability is not None and capability > (7, 0) and parse_release(vllm) < (0, 19, 0):
        found = f"{vllm}, the release for a V100"
        return Finding("vllm", "warn", found, f"Newer releases are faster here. {_SETUP}")
    return Finding("vllm", "ok", vllm)


def _check_torch(device: Device, driver: Driver | None, torch: TorchBuild) -> Finding:
    capability = device.compute_capability
    built = "no CUDA" if torch.cuda is None else "CUDA {}.{}".format(*torch.cuda)
    found = f"{torch.version} ({built})"
    if capability is None:
        status: Status = "ok" if torch.cuda is None else "warn"
        fix = "" if torch.cuda is None else f"The CPU engine is made for the CPU build. {_SETUP}"
        return Finding("torch", status, found, fix)
    if torch.cuda is None:
        return Finding("torch", "fail", f"{found}, but there is a GPU", _SETUP)
    if not has_kernels(torch, capability):
        text = f"{found}: no code for compute capability {capability[0]}.{capability[1]}"
        fix = f'Such a build ends in "no kernel image is available". {_SETUP}'
        return Finding("torch", "fail", text, fix)
    if driver is not None and torch.cuda[0] > driver.cuda[0]:
        text = f"{found}, but the driver runs CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
        return Finding("torch", "fail", text, "Update the NVIDIA driver, or install an older set")
    return Finding("torch", "ok", found)


def has_kernels(torch: TorchBuild, capability: tuple[int, int]) -> bool:
    """Whether torch's released builds of this version have code for a GPU.

    From the architecture lists of PyTorch's releases; `--deep` asks torch itself.
    """
    if torch.cuda is None:
        return False
    release = parse_release(torch.version)
    if capability == (7, 0):
        # 2.7 left Volta out of its CUDA 12.8 build, and 2.11 keeps it for CUDA 12.6 alone.
        if release >= (2, 11, 0):
            return torch.cuda <= (12, 6)
        return not ((2, 7, 0) <= release < (2, 8, 0) and torch.cuda >= (12, 8))
    if capability >= (10, 0):
        return release >= (2, 7, 0) and torch.cuda >= (12, 8)
    return capability >= (7, 5)

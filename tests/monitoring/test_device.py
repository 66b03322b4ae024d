from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slm_vllm.config.compose import group_choices
from slm_vllm.monitoring import device
from slm_vllm.monitoring.device import Device, Gpu, detect_device, visible_gpus
from support.fake_nvml import FakeNvml


@pytest.mark.parametrize(
    ("capability", "profile"),
    [
        (None, "cpu"),
        ((6, 1), "v100"),
        ((7, 0), "v100"),
        ((7, 5), "turing"),
        ((8, 0), "ampere"),
        ((8, 9), "ampere"),
        ((9, 0), "hopper"),
        ((12, 0), "hopper"),
    ],
)
def test_profile(capability: tuple[int, int] | None, profile: str) -> None:
    assert Device("any", "any", capability).profile == profile
    assert profile in group_choices("hardware")


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ({"avx2", "avx512f"}, False),
        ({"avx2", "avx512_bf16"}, True),
        ({"amx_bf16"}, True),
        ({"asimd", "bf16"}, True),  # Arm
    ],
)
def test_bfloat16_of_a_cpu(flags: set[str], fast: bool) -> None:
    assert Device("cpu", "any", cpu_flags=frozenset(flags)).has_fast_bfloat16 is fast


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A machine without NVML whose nvidia-smi answers as that of a V100 does."""
    asked: list[list[str]] = []

    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "Tesla V100-PCIE-32GB, 7.0, 32768\n", "")

    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(device.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(device.subprocess, "run", answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return asked


def test_gpu_from_nvidia_smi(smi: list[list[str]]) -> None:
    found = detect_device()
    assert found == Device("cuda", "Tesla V100-PCIE-32GB", (7, 0), 32 << 30)
    assert found.profile == "v100"


def test_first_visible_gpu_is_asked_about(
    smi: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    detect_device()
    assert "--id=3" in smi[0]


def test_gpu_that_shares_the_hosts_memory(
    smi: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvidia-smi has no figure for its memory; it is a GPU all the same."""
    done = subprocess.CompletedProcess([], 0, "NVIDIA GB10, 12.1, [N/A]\n", "")
    monkeypatch.setattr(device.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(device.os, "sysconf", lambda name: 1 << 15)
    assert detect_device() == Device("cuda", "NVIDIA GB10", (12, 1), 1 << 30)


def test_nvml_without_a_figure_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(nvmlDeviceGetMemoryInfo=FakeNvml.NVMLError("Not Supported"))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device.os, "sysconf", lambda name: 1 << 15)
    assert detect_device() == Device("cuda", "NVIDIA GB10", (12, 1), 1 << 30)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8a2f,GPU-77aa")
    detect_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    detect_device()
    assert nvml.asked == [0, "GPU-8a2f", 2]


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_gpus_are_not_used(
    smi: list[list[str]], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert detect_device().kind == "cpu"
    assert smi == []


@pytest.mark.parametrize(
    "answer", ["", "No devices were found", "GPU, [N/A], 100", "NVIDIA-SMI has failed, a, b"]
)
def test_useless_answers_mean_cpu(
    smi: list[list[str]], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(device.subprocess, "run", lambda *_, **__: done)
    assert detect_device().kind == "cpu"


def test_broken_driver_means_cpu(smi: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 10)

    monkeypatch.setattr(device.subprocess, "run", fail)
    assert detect_device().kind == "cpu"


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="reads /proc/cpuinfo")
def test_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = detect_device()
    assert (found.kind, found.compute_capability, found.profile) == ("cpu", None, "cpu")
    assert found.memory_bytes > 1 << 28
    assert found.name and found.cpu_flags


class EightGpus(FakeNvml):
    """GPU n has n GiB free of 64."""

    def nvmlDeviceGetCount(self) -> int:
        return 8

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return str(index)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if not uuid.startswith("GPU-abc"):
            raise self.NVMLError
        return uuid[-1]

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return f"GPU-{handle}0e6f"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(total=64 << 30, free=int(handle) << 30)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (None, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        ("5, 2", ["5", "2"]),
        ("GPU-abc-3,7", ["GPU-abc-3", "7"]),
        ("3,MIG-none", ["3"]),
        ("GPU-5", ["GPU-5"]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_that_may_be_used_with_their_free_memory(
    said: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", EightGpus())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_gpus() == tuple(Gpu(name, 64 << 30, int(name[-1]) << 30) for name in names)


def test_gpus_of_a_machine_without_nvml(smi: list[list[str]]) -> None:
    assert visible_gpus() == ()

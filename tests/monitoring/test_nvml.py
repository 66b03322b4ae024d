"""What NVML says, and that nothing it says or does not say ends a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from slm_vllm.doctor.gpu import Driver, read_driver
from slm_vllm.monitoring.device import Device, detect_device
from slm_vllm.monitoring.energy import EnergyMeter, gpu_joules
from slm_vllm.monitoring.memory import MemorySampler
from support.fake_nvml import FakeNvml


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    """Puts a GPU into this machine, with a driver that has faults."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("slm_vllm.monitoring.device.shutil.which", lambda name: None)

    def put(**faults: Exception) -> FakeNvml:
        nvml = FakeNvml(**faults)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return nvml

    return put


def gpu_mib() -> float | None:
    with MemorySampler(interval=60.0) as memory:
        memory.sample()
    peak: float | None = memory.report()["peak_gpu"]
    return peak


def test_what_a_gpu_says(machine: Callable[..., FakeNvml]) -> None:
    nvml = machine()
    assert detect_device() == Device("cuda", "NVIDIA GB10", (12, 1), 64 << 30)
    assert read_driver() == Driver("570.1", (12, 8), 1, 48 << 30)
    assert gpu_joules() == 5.5
    assert gpu_joules(["0", "GPU-b"]) == 11.0
    assert EnergyMeter(["0"]).joules() == 0.0
    assert EnergyMeter([]).joules() is None
    assert gpu_mib() == 3.0  # of this process alone
    assert nvml.open == 0


@pytest.mark.parametrize("held", [{}, {1: 7 << 20}, {os.getpid(): None}])
def test_memory_that_is_not_told_by_process_is_missing(
    machine: Callable[..., FakeNvml], held: dict[int, int | None]
) -> None:
    """As in a container that does not see the processes of NVML, or on a part of a GPU."""
    machine().held = held
    assert gpu_mib() is None


def test_memory_that_was_given_back_is_nought(machine: Callable[..., FakeNvml]) -> None:
    nvml = machine()
    with MemorySampler(interval=60.0) as memory:
        memory.sample()
        nvml.held = {}
        assert memory.sample().gpu_bytes == 0


@pytest.mark.parametrize(
    "fault",
    [
        FakeNvml.NVMLError("Not Supported"),
        FakeNvml.NVMLLibraryMismatchError("no such function in this driver"),
        AttributeError("an older package"),
    ],
)
@pytest.mark.parametrize(
    ("function", "missing"),
    [
        ("nvmlInit", {"device", "driver", "free", "energy", "memory"}),
        ("nvmlShutdown", set()),
        ("nvmlSystemGetDriverVersion", {"driver", "free"}),
        ("nvmlDeviceGetCount", {"free", "memory"}),
        ("nvmlDeviceGetHandleByIndex", {"device", "free", "energy", "memory"}),
        ("nvmlDeviceGetCudaComputeCapability", {"device"}),
        ("nvmlDeviceGetMemoryInfo", {"free"}),
        ("nvmlDeviceGetTotalEnergyConsumption", {"energy"}),
        ("nvmlDeviceGetComputeRunningProcesses", {"memory"}),
    ],
)
def test_a_fault_makes_its_figure_missing_and_no_other(
    machine: Callable[..., FakeNvml], function: str, missing: set[str], fault: Exception
) -> None:
    nvml = machine(**{function: fault})
    device, driver = detect_device(), read_driver()
    had = {
        "device": device.kind == "cuda",
        "driver": driver is not None,
        "free": driver is not None and driver.free_bytes is not None,
        "energy": gpu_joules() is not None,
        "memory": gpu_mib() is not None,
    }
    assert {name for name, there in had.items() if not there} == missing
    assert nvml.open == 0


def test_no_package_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (read_driver(), gpu_joules(), gpu_mib()) == (None, None, None)

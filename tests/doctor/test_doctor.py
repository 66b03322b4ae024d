from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.doctor import checks, deep, gpu, machine, services
from slm_vllm.doctor.gpu import Driver, TorchBuild
from slm_vllm.finding import Finding
from slm_vllm.monitoring.device import Device

GIB = 1 << 30
CPU = Device("cpu", "EPYC", None, 8 << 30, frozenset({"avx2"}))
V100 = Device("cuda", "V100", (7, 0), 32 << 30)
T4 = Device("cuda", "T4", (7, 5), 16 << 30)
H200 = Device("cuda", "H200", (9, 0), 139 << 30)
B200 = Device("cuda", "B200", (10, 0), 180 << 30)
DRIVER = Driver("550.1", (12, 4), 1, None)
NEW_DRIVER = Driver("580.1", (13, 0), 1, None)


def built(version: str, *cuda: int) -> TorchBuild:
    return TorchBuild(version, (cuda[0], cuda[1]) if cuda else None)


@pytest.mark.parametrize(
    ("torch", "capability", "expected"),
    [
        (built("2.7.0", 12, 6), (7, 0), True),  # the V100 set
        (built("2.7.1+cu128", 12, 8), (7, 0), False),  # the trap
        (built("2.8.0+cu128", 12, 8), (7, 0), True),
        (built("2.10.0", 12, 8), (7, 0), True),
        (built("2.11.0", 13, 0), (7, 0), False),
        (built("2.11.0+cu126", 12, 6), (7, 0), True),
        (built("2.13.0", 13, 0), (7, 5), True),
        (built("2.13.0", 13, 0), (9, 0), True),
        (built("2.6.0", 12, 4), (10, 0), False),
        (built("2.7.0", 12, 6), (12, 0), False),
        (built("2.7.0+cu128", 12, 8), (12, 0), True),
        (built("2.13.0+cpu"), (9, 0), False),
        (built("2.13.0", 13, 0), (6, 1), False),
    ],
)
def test_kernels(torch: TorchBuild, capability: tuple[int, int], expected: bool) -> None:
    assert gpu.has_kernels(torch, capability) is expected


@pytest.mark.parametrize(
    ("device", "driver", "torch", "vllm", "statuses"),
    [
        (V100, DRIVER, built("2.7.0", 12, 6), "0.9.2", ["ok", "ok"]),
        (V100, DRIVER, built("2.7.0+cu128", 12, 8), "0.9.2", ["ok", "fail"]),
        (V100, DRIVER, built("2.10.0", 12, 8), "0.19.1", ["warn", "ok"]),
        (V100, DRIVER, built("2.13.0", 13, 0), "0.32.0", ["fail", "fail"]),
        (H200, NEW_DRIVER, built("2.13.0", 13, 0), "0.32.0", ["ok", "ok"]),
        (H200, DRIVER, built("2.13.0", 13, 0), "0.32.0", ["ok", "fail"]),  # old driver
        (H200, None, built("2.13.0", 13, 0), "0.32.0", ["ok", "ok"]),
        (T4, NEW_DRIVER, built("2.7.0", 12, 6), "0.9.2", ["warn", "ok"]),
        (H200, NEW_DRIVER, built("2.13.0+cpu"), "0.32.0", ["ok", "fail"]),
        (B200, NEW_DRIVER, built("2.13.0", 13, 0), "0.33.0", ["ok", "ok"]),
        (CPU, None, built("2.13.0+cpu"), "0.32.0", ["ok", "ok"]),
        (CPU, None, built("2.13.0", 13, 0), "0.32.0", ["ok", "warn"]),
        (CPU, None, built("2.13.0+cpu"), None, ["fail"]),
        (CPU, None, None, None, ["fail", "fail"]),
    ],
)
def test_builds(
    device: Device,
    driver: Driver | None,
    torch: TorchBuild | None,
    vllm: str | None,
    statuses: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "installed_vllm", lambda: vllm)
    found = gpu.check_builds(device, driver, torch)
    assert [finding.status for finding in found] == statuses
    assert all(bool(finding.fix) == (finding.status != "ok") for finding in found)


def test_torch_is_read_from_its_version_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('not to be imported')")
    version = tmp_path / "torch" / "version.py"
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    version.write_text("__version__ = '2.7.0+cu126'\ncuda: Optional[str] = '12.6'\nhip = None\n")
    assert gpu.read_torch_build() == built("2.7.0+cu126", 12, 6)
    version.write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    assert gpu.read_torch_build() == built("2.13.0+cpu")


def test_device_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = gpu.check_device(CPU, None)
    assert (line.status, line.fix) == ("ok", "") and "profile cpu" in line.found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    (line,) = gpu.check_device(CPU, DRIVER)
    assert line.status == "warn" and "CUDA_VISIBLE_DEVICES is '-1'" in line.fix

    first, driver = gpu.check_device(V100, DRIVER)
    assert "compute capability 7.0, 32 GiB, profile v100" in first.found
    assert "550.1, CUDA up to 12.4" in driver.found
    assert gpu.check_device(V100, None)[1].status == "warn"
    assert gpu.check_device(Device("cuda", "P40", (6, 1), GIB), DRIVER)[0].status == "fail"

    busy = gpu.check_device(V100, Driver("550", (12, 4), 1, 16 << 30))[2]
    assert busy.status == "warn" and "gpu_memory_utilization=0.45" in busy.fix
    assert gpu.check_device(V100, Driver("550", (12, 4), 1, 31 << 30))[2].status == "ok"


Memory = namedtuple("Memory", "total available")


@pytest.mark.parametrize(
    ("total", "free", "limit", "used", "status"),
    [
        (64, 50, "max", 0, "ok"),
        (64, 5, "max", 0, "warn"),
        (64, 1, "max", 0, "fail"),
        (64, 50, str(4 * GIB), 3 * GIB, "fail"),  # what the container may use
        (64, 50, str(16 * GIB), GIB, "ok"),
        (64, 2, str(16 * GIB), GIB, "warn"),
    ],
)
def test_memory(
    total: int,
    free: int,
    limit: str,
    used: int,
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(total * GIB, free * GIB))
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(str(used))
    assert machine.check_memory(tmp_path).status == status


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "status"), [(0.5, "fail"), (5, "warn"), (50, "ok")])
def test_disk(free: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(free * GIB)))
    (line,) = machine.check_disk({"runs": tmp_path / "not" / "yet", "models": tmp_path})
    assert line.status == status and "runs, models" in line.found


@pytest.mark.parametrize(("free", "status"), [(64 << 20, "warn"), (8 * GIB, "ok")])
def test_shared_memory(
    free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free))
    line = machine.check_shared_memory(tmp_path)
    assert line.status == status and ("--shm-size" in line.fix) == (status == "warn")
    assert machine.check_shared_memory(tmp_path / "gone").status == "warn"


def test_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def statuses(device: Device, *flags: str) -> list[str]:
        return [f.status for f in machine.check_cpu(device, frozenset(flags), tmp_path)]

    assert statuses(CPU, "avx2", "avx512f") == ["ok", "ok"]
    assert statuses(CPU, "sse4_2") == ["fail", "ok"]
    assert statuses(V100, "sse4_2") == ["ok", "ok"]
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert statuses(CPU, "avx2") == ["ok", "warn"]
    (tmp_path / "cpu.max").write_text("max 100000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert statuses(CPU, "avx2") == ["ok", "warn"]


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(services, "installed_version", lambda _: "1.0")
    line = services.check_models(tmp_path / "cache")
    assert line.status == "warn" and "not yet prepared" in line.found
    (tmp_path / "hub" / "models--Qwen--Qwen3-0.6B").mkdir(parents=True)
    (tmp_path / "cache" / "models" / "smollm2-135m-instruct-1").mkdir(parents=True)
    line = services.check_models(tmp_path / "cache")
    assert line.status == "ok" and "demo model: ready" in line.found
    assert "Qwen/Qwen3-0.6B" in line.found


def test_data(tmp_path: Path) -> None:
    for name, path in {"a": "demo", "b": "gone.jsonl", "c": "???", "d": "hf://x"}.items():
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\npath: {path}\n")
    line = services.check_data(tmp_path)
    assert line.found == "here: a; no file for b"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder and home, and no settings of S3 or ClearML."""
    for name in list(os.environ):
        if name.startswith(("CLEARML_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_services_that_are_not_configured(bare: Path) -> None:
    for line in (services.check_s3(), services.check_clearml()):
        assert line.status == "ok" and "not configured" in line.found


def test_services_that_are(bare: Path) -> None:
    (bare / ".env").write_text(
        "CLEARML_S3_ENDPOINT=http://minio.test:9000\nCLEARML_S3_BUCKET=eval\n"
        "CLEARML_S3_ACCESS_KEY=the-access\nCLEARML_S3_SECRET_KEY=the-secret\n"
    )
    line = services.check_s3()
    assert (line.status, "minio.test:9000, bucket eval" in line.found) == ("ok", True)
    assert "the-secret" not in str(line) and "the-access" not in str(line)
    (bare / "clearml.conf").write_text("api {}")
    assert str(bare / "clearml.conf") in services.check_clearml().found


def test_a_missing_clearml_file_fails(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARML_CONFIG_FILE", "/nowhere/clearml.conf")
    line = services.check_clearml()
    assert line.status == "fail" and "/nowhere/clearml.conf" in line.found and line.fix


def test_bucket_that_does_not_answer(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses at once
        port = unused.getsockname()[1]
        monkeypatch.setenv("CLEARML_S3_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("CLEARML_S3_BUCKET", "eval")
        monkeypatch.setenv("CLEARML_S3_ACCESS_KEY", "a")
        monkeypatch.setenv("CLEARML_S3_SECRET_KEY", "the-secret")
        line = services.reach_s3()
    assert line.status == "fail" and "eval" in line.found and "the-secret" not in str(line)


def test_a_broken_check_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Finding:
        raise RuntimeError("what happened")

    monkeypatch.setattr(checks, "check_memory", broken)
    found = checks.run_checks(deep=False, output_dir=tmp_path, cache_dir=tmp_path)
    (line,) = [f for f in found if f.name == "memory"]
    assert line.status == "warn" and "what happened" in line.found
    assert {"python", "device", "disk", "S3", "ClearML"} <= {f.name for f in found}


@pytest.mark.parametrize(
    ("device", "archs", "result", "status"),
    [
        (CPU, [], None, "ok"),
        (H200, ["sm_90"], 64.0**3, "ok"),
        (V100, ["sm_75"], None, "fail"),
    ],
)
def test_torch_itself(
    device: Device,
    archs: list[str],
    result: float | None,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = json.dumps({"version": "2.13.0", "archs": archs, "result": result})
    done = subprocess.CompletedProcess([], 0, f"a warning\n{answer}\n", "")
    monkeypatch.setattr(deep, "_python", lambda code: done)
    assert deep.check_torch_itself(device).status == status


def test_the_product_on_the_gpu_is_what_a_gpu_gives() -> None:
    pytest.importorskip("torch")
    on_the_cpu = deep._TORCH.replace("torch.cuda.is_available()", "True").replace("cuda", "cpu")
    code = on_the_cpu.replace("torch.cpu.get_arch_list()", "[]")
    done = deep._python(code)
    assert not isinstance(done, str), done
    assert json.loads(done.stdout.splitlines()[-1])["result"] == 64.0**3


def test_what_an_import_said_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep, "_VLLM", "raise ImportError('libcudart.so.13: not found')")
    line = deep.check_vllm_import()
    assert line.status == "fail" and "libcudart.so.13" in line.found


def run_doctor(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slm_vllm", "doctor", "--json"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLEARML_", "AWS_"))}
    kept |= {"HOME": str(folder), **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=kept)


def test_command(tmp_path: Path) -> None:
    done = run_doctor(tmp_path)
    report = json.loads(done.stdout)
    statuses = {check["status"] for check in report["checks"]}
    assert report["ok"] == ("fail" not in statuses) == (done.returncode == 0)
    bad = run_doctor(tmp_path, CLEARML_CONFIG_FILE="/nowhere/clearml.conf")
    assert bad.returncode == 1 and json.loads(bad.stdout)["ok"] is False


def test_command_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from slm_vllm.doctor.checks import run_checks\n"
        "run_checks(deep=False, output_dir=Path('.'), cache_dir=Path('.'))\n"
        "heavy = {'torch', 'vllm', 'transformers', 'clearml', 'boto3', 'polars'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)

"""How many engines a machine gets, and what each has of it; no engine is started."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.amounts import GIB
from slm_vllm.config.compose import compose_config
from slm_vllm.config.engine import VllmConfig
from slm_vllm.config.schema import GenerationConfig, HardwareConfig
from slm_vllm.engines import registry
from slm_vllm.engines import settings as settings_module
from slm_vllm.engines.fork_server import ForkServer
from slm_vllm.engines.local_replicas import LocalReplicas
from slm_vllm.engines.replica_plan import ReplicaPlan, plan_replicas, share
from slm_vllm.engines.settings import EngineSettings, kv_cache_bytes, vllm_arguments
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.errors import ConfigError
from slm_vllm.monitoring.device import Device, Gpu

H200 = Device("cuda", "NVIDIA H200", (9, 0), 140 * GIB)
A100 = Device("cuda", "NVIDIA A100", (8, 0), 80 * GIB)
CPU = Device("cpu", "CPU")
LARGE = 4 * GIB
ARGUMENTS = {"model", "dtype", "max_model_len", "seed", "max_num_seqs", "enforce_eager"} | {
    "kv_cache_memory_bytes",
    "gpu_memory_utilization",
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(settings_module, "installed_vllm", lambda: "0.26.0")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def gpu(name: str, free: float = 1.0) -> Gpu:
    return Gpu(name, 140 * GIB, int(free * 140 * GIB))


def sized(
    device: Device = H200, *, gpus: int | tuple[Gpu, ...] = 1, **changes: Any
) -> EngineSettings:
    """SmolLM2-135M on an H200, asked a lot."""
    if isinstance(gpus, int):
        gpus = tuple(gpu(str(n)) for n in range(gpus)) if device is not CPU else ()
    arguments = {"max_num_seqs": 512, **changes.pop("engine_args", {})}
    settings = EngineSettings(
        model_path=Path("/m"),
        device=device,
        hardware=HardwareConfig(name="hopper", engine_args=arguments),
        generation=GenerationConfig(max_new_tokens=32),
        dtype="bfloat16",
        max_model_len=256,
        kv_bytes_per_token=23040,
        questions=100_000,
        weight_bytes=GIB // 4,
        gpus=gpus,
    )
    return dataclasses.replace(settings, **changes)


def auto(settings: EngineSettings) -> ReplicaPlan:
    return plan_replicas(VllmConfig(), settings)


@pytest.mark.parametrize(
    ("changes", "gpus", "on_each", "reason"),
    [
        ({}, ("0",), 4, "bounded by the model's size"),
        ({"weight_bytes": GIB}, ("0",), 2, "bounded by the model's size"),
        ({"weight_bytes": LARGE}, ("0",), 1, "one is taken to fill a GPU"),
        ({"questions": 3100}, ("0",), 1, "one answers in about 5 s"),
        ({"questions": 3610}, ("0",), 2, "bounded by how little is asked"),
        ({"questions": 18_000}, ("0",), 2, "bounded by how little is asked"),
        ({"questions": 19_000}, ("0",), 4, "bounded by the model's size"),
        ({"questions": 3610, "gpus": 3}, ("0", "1"), 1, "bounded by how little is asked"),
        ({"questions": 0}, ("0",), 1, "one answers in about 0 s"),
        ({"gpus": 3}, ("0", "1", "2"), 4, "bounded by the model's size"),
        ({"gpus": (gpu("0"), gpu("1", 0.01), gpu("7"))}, ("0", "7"), 4, "size"),
        ({"gpus": (gpu("0", 0.2), gpu("1", 0.5))}, ("0",), 4, "size"),
        # 0.25 GiB of weights, 2.8 GiB of KV cache and 2 GiB beside them, in 0.9 of 14 GiB.
        ({"gpus": (gpu("0", 0.1),)}, ("0",), 2, "bounded by the memory"),
        # vLLM is to measure what is free: two would count one another's memory as their own.
        ({"engine_args": {"gpu_memory_utilization": 0.5}}, ("0",), 1, "bounded by the memory"),
        ({"gpus": ()}, (), 1, "bounded by the memory"),
        ({"device": A100}, ("0",), 2, "bounded by the model's size"),
        ({"device": A100, "weight_bytes": GIB}, ("0",), 1, "one is taken to fill a GPU"),
        ({"device": CPU, "gpus": ()}, (), 1, "one engine uses all cores"),
    ],
)
def test_auto(changes: dict[str, Any], gpus: tuple[str, ...], on_each: int, reason: str) -> None:
    plan = auto(sized(**changes))
    assert (plan.gpus, plan.on_each) == (gpus, on_each)
    assert reason in plan.reason


def test_each_engine_needs_a_core_and_the_driver_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert (auto(sized()).on_each, auto(sized()).reason) == (3, "bounded by the cores")
    assert auto(sized(gpus=3)).on_each == 1


def test_a_number_is_of_each_gpu() -> None:
    plan = plan_replicas(VllmConfig(replicas_per_gpu=2), sized(gpus=3, questions=1))
    assert (plan.gpus, plan.count) == (("0", "1", "2"), 6)
    assert plan_replicas(VllmConfig(replicas_per_gpu=3), sized(CPU)).count == 3


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="replicas_per_gpu=17: there are 16 cores"):
        plan_replicas(VllmConfig(replicas_per_gpu=17), sized(CPU))
    parallel = sized(gpus=2, engine_args={"tensor_parallel_size": 2})
    assert auto(parallel).count == 1
    with pytest.raises(ConfigError, match="does not go with tensor_parallel_size=2"):
        plan_replicas(VllmConfig(replicas_per_gpu=2), parallel)


@pytest.mark.parametrize("word", ["0", "-1", "1.5", "many", "true"])
def test_words_that_are_no_number(word: str) -> None:
    with pytest.raises(ConfigError, match="engine.replicas_per_gpu: must be auto or a number"):
        compose_config([f"engine.replicas_per_gpu={word}"])


def test_the_share_of_a_gpu() -> None:
    plan = ReplicaPlan(("0", "GPU-b"), 2, "")
    settings = sized(gpus=(gpu("0"), gpu("GPU-b")), questions=10)
    parts = [share(plan, settings, number) for number in range(4)]
    assert [part.environment["CUDA_VISIBLE_DEVICES"] for part in parts] == [
        "0",
        "0",
        "GPU-b",
        "GPU-b",
    ]
    assert {part.environment["VLLM_ENABLE_V1_MULTIPROCESSING"] for part in parts} == {"0"}
    assert {part.settings.questions for part in parts} == {3}
    assert [part.settings.gpus for part in parts[1:3]] == [(gpu("0"),), (gpu("GPU-b"),)]
    assert {part.cores for part in parts} == {()}
    assert {part.threads for part in parts} == {4}  # of 16 cores
    assert not any("OMP_NUM_THREADS" in part.environment for part in parts)


def test_what_the_user_says_of_vllms_processes_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    part = share(ReplicaPlan((), 2, ""), sized(), 0)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in part.environment


def test_what_the_user_says_of_threads_stays() -> None:
    settings = sized()
    hardware = settings.hardware.model_copy(update={"env": {"OMP_NUM_THREADS": "3"}})
    part = share(ReplicaPlan((), 2, ""), dataclasses.replace(settings, hardware=hardware), 0)
    assert "OMP_NUM_THREADS" not in part.environment
    assert part.threads == 0


def test_a_single_engine_keeps_vllms_processes() -> None:
    for settings in (sized(), sized(questions=0)):
        part = share(ReplicaPlan(("0",), 1, ""), settings, 0)
        assert set(part.environment) == {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"}
        assert part.threads == 0


def test_one_that_is_asked_little_has_a_single_process() -> None:
    part = share(ReplicaPlan(("0",), 1, ""), sized(questions=1000), 0)
    assert part.environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    over_two = sized(questions=1000, gpus=2, engine_args={"tensor_parallel_size": 2})
    part = share(ReplicaPlan((), 1, ""), over_two, 0)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in part.environment


def test_the_share_of_a_cpu() -> None:
    plan = ReplicaPlan((), 3, "")
    large = sized(CPU, max_model_len=8192)
    parts = [share(plan, large, number) for number in range(3)]
    assert sorted(core for part in parts for core in part.cores) == list(range(16))
    assert parts[1].environment == {
        "VLLM_CPU_OMP_THREADS_BIND": "1,4,7,10,13",
        "OMP_NUM_THREADS": "5",
    }
    assert kv_cache_bytes(large) == 4 * GIB
    assert kv_cache_bytes(parts[0].settings) == 4 * GIB // 3


def test_the_kv_cache_of_a_gpu_is_a_full_batch_at_full_length() -> None:
    whole = 512 * 256 * 23040
    assert kv_cache_bytes(sized()) == whole
    assert kv_cache_bytes(sized(max_model_len=16)) == GIB
    # Nobody else needs more than what is asked to be free: a quarter GiB, the cache and 2 GiB.
    arguments, _ = vllm_arguments(sized(), ARGUMENTS)
    assert arguments["kv_cache_memory_bytes"] == whole
    assert arguments["gpu_memory_utilization"] == 0.04
    assert 0.03 < (whole + 2.25 * GIB) / (140 * GIB) <= 0.04


@pytest.mark.parametrize(
    ("changes", "share_of_gpu"),
    [
        ({"max_model_len": 40960}, 0.9),  # 450 GiB
        ({"gpus": (gpu("0", 0.03),)}, 0.9),
        ({"gpus": ()}, 0.9),
        ({"kv_bytes_per_token": 0}, 0.9),
        ({"engine_args": {"gpu_memory_utilization": 0.5}}, 0.5),
        ({"engines_on_device": 4, "gpus": ()}, 0.22),
    ],
)
def test_where_vllm_measures_what_is_free(changes: dict[str, Any], share_of_gpu: float) -> None:
    arguments, _ = vllm_arguments(sized(**changes), ARGUMENTS)
    assert "kv_cache_memory_bytes" not in arguments
    assert arguments["gpu_memory_utilization"] == share_of_gpu


def test_an_old_release_takes_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "installed_vllm", lambda: "0.9.2")
    assert kv_cache_bytes(sized()) is None
    part = share(ReplicaPlan(("0",), 2, ""), sized(), 1)
    arguments, _ = vllm_arguments(part.settings, ARGUMENTS)
    assert arguments["gpu_memory_utilization"] == 0.45


def test_a_share_that_the_user_gives_is_of_the_whole_gpu() -> None:
    settings = sized(engine_args={"gpu_memory_utilization": 0.5})
    part = share(ReplicaPlan(("0",), 2, ""), settings, 1)
    assert vllm_arguments(part.settings, ARGUMENTS)[0]["gpu_memory_utilization"] == 0.25


def waves(settings: EngineSettings, plan: ReplicaPlan) -> list[list[int]]:
    return LocalReplicas(settings, make_engine=VllmEngine, plan=plan)._connect()


def test_engines_that_measure_are_loaded_one_after_the_other() -> None:
    plan = ReplicaPlan(("0", "1"), 2, "")
    assert waves(sized(gpus=2), plan) == [[0, 1, 2, 3]]
    assert waves(sized(gpus=2, kv_bytes_per_token=0), plan) == [[0, 2], [1, 3]]
    assert waves(sized(CPU), ReplicaPlan((), 2, "")) == [[0, 1]]


def test_the_factory_makes_one_or_several() -> None:
    one = registry.engine_factory(VllmConfig())(sized(CPU, questions=10))
    assert isinstance(one, VllmEngine)
    assert one._settings.choices == {"replicas": "1: one engine uses all cores"}
    apart = registry.engine_factory(VllmConfig())(sized(questions=10))
    assert isinstance(apart, LocalReplicas)
    assert apart._settings.choices == {"replicas": "1: one answers in about 0 s"}
    several = registry.engine_factory(VllmConfig())(sized())
    assert isinstance(several, LocalReplicas)


def test_what_is_imported_ahead_is_imported_where_engines_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        VllmEngine,
        "import_ahead",
        lambda: done.append(("here", os.environ.get("READ_BY_AN_IMPORT"))),
    )
    monkeypatch.setattr(ForkServer, "begin", lambda _, words: done.append(("apart", words)))
    monkeypatch.setenv("READ_BY_AN_IMPORT", "")
    monkeypatch.delenv("READ_BY_AN_IMPORT")  # as it was, when this test has ended
    hardware = HardwareConfig(name="h", env={"READ_BY_AN_IMPORT": "variable"})
    with registry.engine_fork_server(VllmConfig()) as fork_server:
        for here in (VllmConfig(), VllmConfig(replicas_per_gpu=1)):
            registry.engine_import(here, hardware, CPU, fork_server)()
            assert done.pop() == ("here", "variable")
        monkeypatch.delenv("READ_BY_AN_IMPORT")
        several = VllmConfig(replicas_per_gpu=2)
        registry.engine_import(several, hardware, CPU, fork_server)()
        assert done.pop() == ("apart", {"READ_BY_AN_IMPORT": "variable"})
        hardware = hardware.model_copy(update={"deterministic": True})
        registry.engine_import(VllmConfig(), hardware, H200, fork_server)()
        assert done.pop()[1]["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in os.environ  # another run of this process may be without


@pytest.mark.parametrize(
    ("device", "words", "begun"),
    [
        (H200, [], True),
        (CPU, [], False),
        (CPU, ["engine.replicas_per_gpu=2"], True),
        (H200, ["engine.name=openai", "engine.base_url=[http://localhost:9/v1]"], False),
    ],
)
def test_a_command_begins_with_what_is_forked(
    device: Device, words: list[str], begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(ForkServer, "begin", lambda _, variables: done.append(variables))
    monkeypatch.setattr(registry, "detect_device", lambda: device)
    config = compose_config(["hardware=hopper", *words])
    with registry.begin_import(config):
        assert done == ([dict(config.hardware.env)] if begun else [])

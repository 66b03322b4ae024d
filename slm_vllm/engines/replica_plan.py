"""How many engines run on one machine, and the share of each."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

from slm_vllm.amounts import GIB
from slm_vllm.config.engine import VllmConfig
from slm_vllm.config.schema import HardwareConfig
from slm_vllm.engines.settings import EngineSettings, device_bytes, kv_cache_bytes
from slm_vllm.errors import ConfigError
from slm_vllm.monitoring.device import Device

# Seen on an H100 and an H200 with SmolLM2-135M (0.27 GB): 2 engines answer 1.7 to 2.2 times as much
# as one, 4 2.1 to 2.6 times, 6 no more; with Qwen3-0.6B (1.5 GB) 2 engines 1.6 times. What larger
# models gain, and slower GPUs, was not measured: both are less idle.
_MEASURED_ON = (9, 0)
_MOST_BY_WEIGHTS = ((GIB // 2, 4), (3 * GIB // 2, 2))
_TOKENS_PER_SECOND = 20_000  # new ones, of one engine there, which is bound by a core of Python
# Of answering by one engine. A second one loads some tenths of a second longer and halves that; a
# third and fourth take a fifth off what is left.
_WORTH_TWO_SECONDS, _WORTH_MORE_SECONDS = 5.0, 30.0
_FREE = 0.9  # of the memory of a GPU that nobody else works on


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """Engines of one machine.

    Attributes:
        gpus: Names of the GPUs as CUDA_VISIBLE_DEVICES has them; empty on a CPU.
        on_each: Engines on each of them.
        reason: Why, in words.
    """

    gpus: tuple[str, ...]
    on_each: int
    reason: str

    @property
    def count(self) -> int:
        """Engines in all."""
        return max(1, len(self.gpus)) * self.on_each


def plan_replicas(config: VllmConfig, settings: EngineSettings) -> ReplicaPlan:
    """Says how many engines a run gets.

    Raises:
        ConfigError: More are wanted than the machine can have.
    """
    check_replicas(config, settings.hardware, settings.device)
    wanted, parts = config.replicas_per_gpu, _gpus_of_one(settings.hardware)
    if parts > 1:
        return ReplicaPlan((), 1, f"one engine over {parts} GPUs")
    if wanted == "auto":
        return _chosen(settings)
    return ReplicaPlan(tuple(gpu.name for gpu in settings.gpus), wanted, "as configured")


def check_replicas(config: VllmConfig, hardware: HardwareConfig, device: Device) -> None:
    """Checks a number of engines before anything is loaded.

    Raises:
        ConfigError: More are wanted than the machine can have.
    """
    wanted, parts = config.replicas_per_gpu, _gpus_of_one(hardware)
    if wanted in ("auto", 1):
        return
    if parts > 1:
        raise ConfigError(
            f"engine.replicas_per_gpu={wanted} does not go with tensor_parallel_size={parts}: "
            "an engine has either several GPUs or a share of one"
        )
    cores = len(os.sched_getaffinity(0))
    if device.kind == "cpu" and int(wanted) > cores:
        raise ConfigError(
            f"engine.replicas_per_gpu={wanted}: there are {cores} cores, and each engine needs one"
        )


def _gpus_of_one(hardware: HardwareConfig) -> int:
    return int(hardware.engine_args.get("tensor_parallel_size", 1))


def _chosen(settings: EngineSettings) -> ReplicaPlan:
    if settings.device.kind == "cpu":
        return ReplicaPlan((), 1, "one engine uses all cores")
    seconds = _seconds_of_one(settings)
    if seconds < _WORTH_TWO_SECONDS:
        gpus, on_each, reason = settings.gpus[:1], 1, f"one answers in about {seconds:.0f} s"
    else:
        free = [gpu for gpu in settings.gpus if gpu.free_bytes >= _FREE * gpu.memory_bytes]
        gpus = tuple(free[: int(2 * seconds / _WORTH_TWO_SECONDS)]) or settings.gpus[:1]
        on_each, reason = _on_each(dataclasses.replace(settings, gpus=gpus), seconds)
    return ReplicaPlan(tuple(gpu.name for gpu in gpus), on_each, reason)


def _seconds_of_one(settings: EngineSettings) -> float:
    """About how long one engine answers; a model that takes more memory is taken to be slower."""
    tokens = settings.questions * settings.generation.max_new_tokens
    return tokens / _TOKENS_PER_SECOND * max(1.0, settings.weight_bytes / (GIB // 2))


def _on_each(settings: EngineSettings, seconds: float) -> tuple[int, str]:
    """Engines that pay on each of the GPUs, and what bounds them.

    Args:
        settings: With the GPUs that are used.
        seconds: Of `_seconds_of_one`.
    """
    by_size = next((n for size, n in _MOST_BY_WEIGHTS if settings.weight_bytes <= size), 1)
    if (settings.device.compute_capability or (0, 0)) < _MEASURED_ON:
        by_size //= 2
    if not settings.weight_bytes or by_size < 2:
        return 1, "one is taken to fill a GPU with a model of this size"
    by_cores = (len(os.sched_getaffinity(0)) - 1) // max(1, len(settings.gpus))
    by_memory = 0
    if kv_cache_bytes(settings) is not None:
        free = min(gpu.free_bytes for gpu in settings.gpus)
        by_memory = int(_FREE * free / device_bytes(settings))
    seconds /= max(1, len(settings.gpus))
    by_time = 1 if seconds < _WORTH_TWO_SECONDS else 2
    if seconds >= _WORTH_MORE_SECONDS:
        by_time = by_size
    bounds = {"the model's size": by_size, "how little is asked": by_time}
    bounds |= {"the cores": by_cores, "the memory": by_memory}
    named = min(bounds, key=bounds.__getitem__)
    return max(1, bounds[named]), f"bounded by {named}"


@dataclass(frozen=True, slots=True)
class Share:
    """What one engine has of the machine.

    Attributes:
        settings: Its settings.
        environment: Variables of its process.
        cores: Those it may use; empty: all.
        threads: Of torch on the CPU; 0: as torch chooses.
    """

    settings: EngineSettings
    environment: Mapping[str, str]
    cores: tuple[int, ...] = ()
    threads: int = 0


def share(plan: ReplicaPlan, settings: EngineSettings, number: int) -> Share:
    """The part of one engine.

    Args:
        plan: Of all.
        settings: Those of the run.
        number: Which one, from 0.
    """
    whole = settings
    settings = dataclasses.replace(
        settings,
        engines_on_device=plan.on_each,
        questions=-(-settings.questions // plan.count),
    )
    if settings.device.kind == "cpu":
        cores = core_share(number, plan.count)
        return Share(settings, core_environment(cores), cores, len(cores))
    environment: dict[str, str] = {}
    threads = 0
    if _is_open("VLLM_ENABLE_V1_MULTIPROCESSING", settings) and _shares_process(plan, whole):
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if plan.count > 1 and _is_open("OMP_NUM_THREADS", settings):
        # Each would have one for every core while it converts weights, and wait for theirs. Said by
        # that variable it would hold while they answer too, where vLLM leaves itself one (0.32).
        threads = max(1, len(os.sched_getaffinity(0)) // plan.count)
    arguments = settings.hardware.engine_args
    if "gpu_memory_utilization" in arguments:
        part = int(100 * float(arguments["gpu_memory_utilization"]) / plan.on_each) / 100
        arguments = {**arguments, "gpu_memory_utilization": part}
        hardware = settings.hardware.model_copy(update={"engine_args": arguments})
        settings = dataclasses.replace(settings, hardware=hardware)
    if plan.gpus:
        own = plan.gpus[number // plan.on_each]
        gpus = tuple(gpu for gpu in settings.gpus if gpu.name == own)
        settings = dataclasses.replace(settings, gpus=gpus)
        # NVML counts GPUs in this order, CUDA by itself in another.
        environment |= {"CUDA_VISIBLE_DEVICES": own, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return Share(settings, environment, threads=threads)


def _is_open(variable: str, settings: EngineSettings) -> bool:
    """Whether the user has said nothing of a variable."""
    return variable not in os.environ and variable not in settings.hardware.env


def _shares_process(plan: ReplicaPlan, settings: EngineSettings) -> bool:
    """Whether an engine's core is in the process of its driver, which is the engine's own.

    Apart a single one answers a tenth to a fifth more a second, and takes a second longer to start
    and another to end.
    """
    if plan.count > 1:
        return True
    return (
        _gpus_of_one(settings.hardware) == 1 and 0 < _seconds_of_one(settings) < _WORTH_TWO_SECONDS
    )


def core_share(number: int, count: int) -> tuple[int, ...]:
    """The cores of one of several engines on this machine's CPU."""
    cores = sorted(os.sched_getaffinity(0))
    return tuple(cores[number % len(cores) :: count])


def core_environment(cores: tuple[int, ...]) -> dict[str, str]:
    """What tells vLLM and its libraries which cores are theirs."""
    return {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
    }

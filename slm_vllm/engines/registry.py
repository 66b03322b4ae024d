"""Which class serves which `engine.name`.

A package of its own can add one with an entry point in the group `slm_vllm.engines`, whose name is
the engine's and whose value is a class derived from `BaseEngine`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from functools import partial

from slm_vllm.config.engine import ENTRY_POINTS, EngineConfig, VllmConfig
from slm_vllm.config.schema import Config, HardwareConfig
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.fork_server import ForkServer
from slm_vllm.engines.replica_plan import check_replicas, plan_replicas
from slm_vllm.engines.settings import EngineSettings, checked_dtype, hardware_environment
from slm_vllm.monitoring.device import Device, detect_device
from slm_vllm.plugins import Registry

log = logging.getLogger(__name__)

_ENGINES = Registry(
    key="engine.name",
    noun="engine",
    group=ENTRY_POINTS,
    base=BaseEngine,  # type: ignore[type-abstract]
    built_in={
        "vllm": "slm_vllm.engines.vllm_offline:VllmEngine",
        "openai": "slm_vllm.engines.openai_engine:OpenAIEngine",
        "ray": "slm_vllm.engines.ray_engine:RayEngine",
    },
    arguments=("settings", "config"),
)

engine_names = _ENGINES.names
engine_class = _ENGINES.find

EngineFactory = Callable[[EngineSettings], BaseEngine]


def check_engine(config: Config, device: Device) -> None:
    """Checks what an engine is told against the device, before anything is loaded.

    Raises:
        ConfigError: A setting that this machine cannot have.
    """
    checked_dtype(config, device)
    if isinstance(config.engine, VllmConfig):
        check_replicas(config.engine, config.hardware, device)


def engine_factory(config: EngineConfig, fork_server: ForkServer | None = None) -> EngineFactory:
    """What makes the engine of a run, once its settings are known.

    Args:
        config: The `engine` section.
        fork_server: Of `engine_fork_server`, for engines in processes of their own.

    Raises:
        ConfigError: There is no such engine.
    """
    found = engine_class(config.name)
    if isinstance(config, VllmConfig):
        return partial(_one_or_several, found, config, fork_server or engine_fork_server(config))
    return lambda settings: found(settings, config)


def _one_or_several(
    found: type[BaseEngine], config: VllmConfig, fork_server: ForkServer, settings: EngineSettings
) -> BaseEngine:
    """Engines in processes of their own, or one in this process on a CPU.

    On a GPU vLLM's seconds of imports then overlap with the survey and the tokenizer, a crash of
    CUDA ends an engine and not the run, and nothing of it is to be torn down at the end.
    """
    plan = plan_replicas(config, settings)
    log.info("engines: %d (%s)", plan.count, plan.reason)
    settings = dataclasses.replace(settings, choices={"replicas": f"{plan.count}: {plan.reason}"})
    if plan.count == 1 and settings.device.kind == "cpu":
        return found(settings, config)
    from slm_vllm.engines.local_replicas import LocalReplicas

    make_engine = partial(found, config=config)
    return LocalReplicas(
        settings, config, make_engine=make_engine, plan=plan, fork_server=fork_server
    )


def engine_fork_server(config: EngineConfig) -> ForkServer:
    """What engines of this machine are forked from, not begun yet.

    Raises:
        ConfigError: There is no such engine.
    """
    from slm_vllm.engines.replica_process import main

    return ForkServer(main, engine_class(config.name).import_ahead)


def begin_import(config: Config) -> ForkServer:
    """The first thing of a command: what its engine imports takes longer than all before it.

    Returns:
        What engines are forked from; begun, if this machine's are.

    Raises:
        ConfigError: There is no such engine.
    """
    fork_server, device = engine_fork_server(config.engine), detect_device()
    if _is_forked(config.engine, device):
        fork_server.begin(hardware_environment(config.hardware, device))
    return fork_server


def _is_forked(config: EngineConfig, device: Device) -> bool:
    if not isinstance(config, VllmConfig):
        return False
    return device.kind == "cuda" or config.replicas_per_gpu not in ("auto", 1)


def engine_import(
    config: EngineConfig, hardware: HardwareConfig, device: Device, fork_server: ForkServer
) -> Callable[[], None]:
    """What imports an engine's packages ahead, here or where engines are forked.

    Args:
        config: The `engine` section.
        hardware: The profile; its variables are set before, as some are read by an import.
        device: What it will run on.
        fork_server: Of `engine_fork_server`.

    Raises:
        ConfigError: There is no such engine.
    """
    found = engine_class(config.name)
    if not isinstance(config, VllmConfig):
        return found.import_ahead
    environment = hardware_environment(hardware, device)
    if _is_forked(config, device):
        return partial(fork_server.begin, environment)

    def import_here() -> None:
        os.environ.update(environment)
        found.import_ahead()

    return import_here

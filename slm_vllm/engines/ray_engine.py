"""Several engines on a Ray cluster behind one interface.

Plain actors rather than Ray Data: the contract is a stream with every answer in hand as it
finishes, so that it can be journaled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from slm_vllm.config.engine import EngineConfig, RayConfig
from slm_vllm.engines.ray_cluster import connect, count_gpus, import_ray, live_nodes
from slm_vllm.engines.replica import Exchange, Replica, ReplicaInfo
from slm_vllm.engines.replica_plan import core_environment, core_share
from slm_vllm.engines.replicated import Link, MakeEngine, ReplicaLostError, ReplicatedEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.errors import ConfigError, MissingExtraError
from slm_vllm.plugins import loaded_modules
from slm_vllm.types import EngineInfo, GenerationRequest


class _Actor(Link):
    """A replica in an actor; the call that is out is an object of Ray's."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self.call = actor.start.remote()

    def exchange(self, requests: list[GenerationRequest], wait: float) -> None:
        """See `Link.exchange`."""
        self.call = self._actor.exchange.remote(requests, wait)

    def result(self) -> ReplicaInfo | Exchange:
        """See `Link.result`."""
        try:
            found: ReplicaInfo | Exchange = self._ray.get(self.call)
        except self._ray.exceptions.RayError as error:
            raise ReplicaLostError(str(error)) from error
        return found

    def forget_prompts(self) -> None:
        """See `Link.forget_prompts`."""
        self._actor.forget_prompts.remote()

    def end(self) -> None:
        """Ray has no more than `kill`."""

    def kill(self) -> None:
        """See `Link.kill`."""
        self._ray.kill(self._actor)


class RayEngine(ReplicatedEngine):
    """Replicas of one engine, each in an actor with its own GPUs.

    Args:
        settings: Of each replica's engine.
        config: The `engine` section.
        make_engine: Builds the engine inside the actor.
    """

    config_class: ClassVar[type[EngineConfig]] = RayConfig
    auxiliary: ClassVar[frozenset[str]] = VllmEngine.auxiliary

    def __init__(
        self,
        settings: EngineSettings,
        config: EngineConfig | None = None,
        make_engine: MakeEngine = VllmEngine,
    ) -> None:
        super().__init__(settings, config, make_engine=make_engine)
        self._config = config if isinstance(config, RayConfig) else RayConfig()
        self._ray: Any = None
        self._shutdown: Callable[[], None] = lambda: None
        self._n = 0

    @classmethod
    def import_ahead(cls) -> None:
        """Imports Ray; a missing package is reported by `start`."""
        with contextlib.suppress(MissingExtraError):
            import_ray()

    def _connect(self) -> list[list[int]]:
        self._ray = import_ray()
        for module in loaded_modules():
            # An engine among them goes to nodes that do not have the file.
            self._ray.cloudpickle.register_pickle_by_value(module)
        self._shutdown = connect(self._ray, self._config.ray_address)
        self._n = self._count()
        return [list(range(self._n))]

    def _disconnect(self) -> None:
        """A Ray that this process started ends with it."""
        if self._ray is not None:
            self._shutdown()
            self._ray = None

    def _describe(self, replicas: list[EngineInfo], hosts: list[str]) -> EngineInfo:
        details = {
            "replicas": len(replicas),
            "hosts": hosts,
            "ray": self._ray.__version__,
            "replica": replicas[0].details,
        }
        return EngineInfo("ray", min(one.max_model_len for one in replicas), details)

    def _ready(self, links: Sequence[Link], seconds: float) -> list[Link]:
        by_call = {link.call: link for link in links if isinstance(link, _Actor)}
        done, _ = self._ray.wait(list(by_call), num_returns=1, timeout=seconds)
        return [by_call[call] for call in done]

    def _count(self) -> int:
        gpus = count_gpus(self._ray)
        each = self._config.gpus_per_replica if self._settings.device.kind == "cuda" else 0
        n = self._config.replicas or (max(1, int(gpus / each)) if each else 1)
        if each and n * each > gpus:
            raise ConfigError(
                f"engine.replicas={n} of {each:g} GPUs each need {n * each:g}; the cluster has "
                f"{gpus:g}"
            )
        return n

    def _open(self, number: int, times_replaced: int) -> Link:
        questions = -(-self._settings.questions // self._n)
        settings = dataclasses.replace(self._settings, questions=questions)
        gpus = self._config.gpus_per_replica
        # A byte, as Ray leaves the placing of what needs nothing to any node, a dead one too.
        options: dict[str, Any] = {"num_cpus": 0, "memory": 1}
        environment = {}
        if settings.device.kind == "cuda":
            options["num_gpus"] = gpus
            # What is free on this machine's GPUs says nothing of those it will get.
            settings = dataclasses.replace(_tensor_parallel(settings, int(gpus)), gpus=())
        else:
            # One that is replaced moves on: its node may be what ended it.
            options["scheduling_strategy"] = self._node_for(number + times_replaced)
            if self._config.ray_address is None and self._n > 1:
                environment = core_environment(core_share(number, self._n))
            else:  # Ray would leave one thread to an actor that reserves no CPU
                environment["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
        actor = (
            self._ray.remote(Replica)
            .options(runtime_env={"env_vars": environment}, **options)
            .remote(partial(self._make_engine, settings))
        )
        return _Actor(self._ray, actor)

    def _node_for(self, turn: int) -> Any:
        """The nodes in turn: without GPUs to reserve, Ray would put all replicas on one."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = live_nodes(self._ray)
        return NodeAffinitySchedulingStrategy(nodes[turn % len(nodes)], soft=True)


def _tensor_parallel(settings: EngineSettings, gpus: int) -> EngineSettings:
    """Spreads the model over the GPUs of a replica, unless the user has said how."""
    arguments = settings.hardware.engine_args
    if gpus < 2 or "tensor_parallel_size" in arguments:
        return settings
    spread = {"tensor_parallel_size": gpus, "distributed_executor_backend": "mp"}
    hardware = settings.hardware.model_copy(update={"engine_args": {**arguments, **spread}})
    return dataclasses.replace(settings, hardware=hardware)

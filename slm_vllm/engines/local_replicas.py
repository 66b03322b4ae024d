"""Several engines on this machine, on one GPU, on several or on parts of its cores.

A single engine of a small model is bound by one core of Python and leaves a GPU two thirds idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from slm_vllm.config.engine import EngineConfig
from slm_vllm.engines.fork_server import ForkServer
from slm_vllm.engines.replica_plan import ReplicaPlan, share
from slm_vllm.engines.replica_process import ReplicaProcess, main, ready
from slm_vllm.engines.replicated import Link, MakeEngine, ReplicatedEngine
from slm_vllm.engines.settings import EngineSettings, kv_cache_bytes
from slm_vllm.types import EngineInfo


class LocalReplicas(ReplicatedEngine):
    """Replicas of one engine, each in a process of this machine.

    Args:
        settings: Of the run; each replica gets its part.
        config: The `engine` section.
        make_engine: Builds the engine in its process; can be pickled.
        plan: How many, and where.
        fork_server: Forks their processes; ends with the engine.
    """

    def __init__(
        self,
        settings: EngineSettings,
        config: EngineConfig | None = None,
        *,
        make_engine: MakeEngine,
        plan: ReplicaPlan,
        fork_server: ForkServer | None = None,
    ) -> None:
        super().__init__(settings, config, make_engine=make_engine)
        self._plan = plan
        self._fork_server = fork_server or ForkServer(main)

    def _connect(self) -> list[list[int]]:
        numbers = list(range(self._plan.count))
        if len(numbers) > 1:
            self.say(f"{len(numbers)} engines, in a process each ({self._plan.reason})")
        gpu_measures = self._settings.device.kind == "cuda" and (
            kv_cache_bytes(share(self._plan, self._settings, 0).settings) is None
        )
        if not gpu_measures:
            return [numbers]
        # An engine that measures the free memory counts what another one takes meanwhile as its
        # own (vllm-project/vllm issue 55827): those of one GPU are loaded one after the other.
        return [numbers[turn :: self._plan.on_each] for turn in range(self._plan.on_each)]

    def _open(self, number: int, times_replaced: int) -> Link:
        part = share(self._plan, self._settings, number)
        make_engine = partial(self._make_engine, part.settings)
        return ReplicaProcess(
            self._fork_server, make_engine, part.environment, part.cores, part.threads
        )

    def _ready(self, links: Sequence[Link], seconds: float) -> list[Link]:
        return ready(links, seconds)

    def _describe(self, replicas: list[EngineInfo], hosts: list[str]) -> EngineInfo:
        first = replicas[0]
        choices = first.details.get("choices") or {}
        if self._settings.device.kind == "cuda" and "start" in choices:
            self.say(f"Start: {choices['start']} (hardware.start)")
        several = {
            "replicas": len(replicas),
            "replicas_per_gpu": self._plan.on_each,
            "gpus": list(self._plan.gpus),
        }
        limit = min(one.max_model_len for one in replicas)
        return EngineInfo(first.engine, limit, {**first.details, **several})

    def _disconnect(self) -> None:
        """See `ReplicatedEngine._disconnect`."""
        self._fork_server.close()

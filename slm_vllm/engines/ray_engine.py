"""Many engines on a Ray cluster behind the contract of one.

Plain actors rather than Ray Data: the contract is a stream with every answer in hand as it
finishes, so that it can be journaled. Journal, scores and progress stay with the driver; a lost
actor or node loses only what it had in flight, which the others are asked again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from slm_vllm.config.engine import EngineConfig, RayConfig
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.engines.ray_cluster import connect, count_gpus, import_ray
from slm_vllm.engines.ray_replica import Exchange, Replica, ReplicaInfo, versions
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.errors import ConfigError, EngineDiedError, EngineError, MissingExtraError
from slm_vllm.plugins import loaded_modules
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

log = logging.getLogger(__name__)

MakeEngine = Callable[[EngineSettings], BaseEngine]

# Of one request that was in flight when its replica was lost. Whether it or another one in flight
# was the cause cannot be told; `--retry-errors` asks those again that become errors.
_MOST_ATTEMPTS = 3
_MOST_REPLACEMENTS = 3  # of one replica; Ray may put some on a node it does not know to be dead
_WAIT_SECONDS = 1.0  # of one exchange for a first answer, once the replica has its fill
_FILL_SECONDS = 0.05  # and before
_CHUNKS = 8  # that a full batch is handed over in, so that few rows are shared by all replicas
_POLL_SECONDS = 1.0  # signals are handled between two polls
_SAY_SECONDS = 60.0


@dataclass(slots=True)
class _Member:
    """One replica as the driver sees it."""

    number: int
    actor: Any
    call: Any
    info: ReplicaInfo | None = None
    pending: dict[str, GenerationRequest] = field(default_factory=dict)
    peak_rss: int = 0


class RayEngine(BaseEngine):
    """Replicas of one engine, each in an actor with its own GPUs.

    Args:
        settings: Of each replica's engine.
        config: The `engine` section.
        make_engine: Builds the engine inside the actor.
    """

    config_class: ClassVar[type[EngineConfig]] = RayConfig

    def __init__(
        self,
        settings: EngineSettings,
        config: EngineConfig | None = None,
        make_engine: MakeEngine = VllmEngine,
    ) -> None:
        super().__init__(settings, config)
        self._config = config if isinstance(config, RayConfig) else RayConfig()
        self._make_engine = make_engine
        self._ray: Any = None
        self._shutdown: Callable[[], None] = lambda: None
        self._members: list[_Member] = []
        self._n = 0
        self._replaced: dict[int, int] = {}
        self._attempts: dict[str, int] = {}

    @classmethod
    def import_ahead(cls) -> None:
        """Imports Ray; a missing package is reported by `start`."""
        with contextlib.suppress(MissingExtraError):
            import_ray()

    def start(self) -> EngineInfo:
        """Connects and loads the model in every replica at once.

        Raises:
            EngineError: No cluster, not enough GPUs, or no replica could load the model.
        """
        self._ray = import_ray()
        for module in loaded_modules():
            # An engine among them goes to nodes that do not have the file.
            self._ray.cloudpickle.register_pickle_by_value(module)
        self._shutdown = connect(self._ray, self._config.ray_address)
        self._n = self._count()
        self._members = [self._add(number) for number in range(self._n)]
        failures = self._wait_for_all()
        if not self._members:
            raise EngineError(f"No replica could start. The first one said: {failures[0]}")
        for failure in failures:
            log.warning("a replica could not start and is left out: %s", failure)
        infos = [member.info for member in self._members if member.info is not None]
        engines = [info.engine for info in infos if info.engine is not None]
        details = {
            "replicas": len(infos),
            "hosts": sorted({info.host for info in infos}),
            "ray": self._ray.__version__,
            "replica": engines[0].details,
        }
        return EngineInfo("ray", min(e.max_model_len for e in engines), details)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        """See `BaseEngine.stream`."""
        if self._ray is None or not self._members:
            raise EngineError("The engine is not started")
        source = Prefetcher(requests, self._settings.window * len(self._members))
        again: deque[GenerationRequest] = deque()
        for member in self._members:
            member.pending.clear()  # of a stream that was given up
        try:
            while True:
                for member in self._members:
                    self._hand_over(member, source, again)
                calls = {m.call: m for m in self._members if m.call is not None}
                if not calls:
                    if source.exhausted and not again:
                        return
                    again.extend(filter(None, [source.take(wait=True)]))
                    continue
                done, _ = self._ray.wait(list(calls), num_returns=1, timeout=_POLL_SECONDS)
                for call in done:
                    yield from self._collect(calls[call], again)
        finally:
            source.close()

    def close(self) -> None:
        """Ends the replicas; a Ray that this process started ends with it."""
        if self._ray is None:
            return
        for member in self._members:
            self._ray.kill(member.actor)
        self._members = []
        self._shutdown()
        self._ray = None

    def memory_usage(self) -> dict[str, Any]:
        """Peak resident memory of each replica, wherever it runs."""
        return {
            f"replica {member.number}": {
                "host": member.info.host,
                "peak_rss": round(member.peak_rss / (1 << 20), 1),
            }
            for member in self._members
            if member.info is not None
        }

    def _wait_for_all(self) -> list[str]:
        """Takes up every replica that loads; returns why others did not."""
        failures = []
        say_at = time.monotonic() + _SAY_SECONDS
        loading = {member.call: member for member in self._members}
        while loading:
            done, _ = self._ray.wait(list(loading), num_returns=1, timeout=_POLL_SECONDS)
            for call in done:
                member = loading.pop(call)
                try:
                    self._take_up(member, self._ray.get(call))
                except (EngineError, self._ray.exceptions.RayError) as error:
                    failures.append(str(error))
                    self._members.remove(member)
            if time.monotonic() > say_at:
                say_at += _SAY_SECONDS
                log.info("%d of %d replicas are not loaded yet", len(loading), self._n)
        return failures

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

    def _add(self, number: int) -> _Member:
        """A new actor that begins to load the model."""
        settings, gpus = self._settings, self._config.gpus_per_replica
        options: dict[str, Any] = {"num_cpus": 0}
        environment = {}
        if settings.device.kind == "cuda":
            options["num_gpus"] = gpus
            settings = _tensor_parallel(settings, int(gpus))
        else:
            options["scheduling_strategy"] = self._node_for(number)
            cores = sorted(os.sched_getaffinity(0))
            if self._config.ray_address is None and self._n > 1:
                own = cores[number % len(cores) :: self._n]
                environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, own))
                cores = own
            # Ray would leave one thread to an actor that reserves no CPU.
            environment["OMP_NUM_THREADS"] = str(len(cores))
        actor = (
            self._ray.remote(Replica)
            .options(runtime_env={"env_vars": environment}, **options)
            .remote(partial(self._make_engine, settings))
        )
        return _Member(number, actor, actor.start.remote())

    def _node_for(self, number: int) -> Any:
        """The nodes in turn: without GPUs to reserve, Ray would put all replicas on one."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = sorted(node["NodeID"] for node in self._ray.nodes() if node["Alive"])
        # One that is replaced moves on: its node may be dead and not known to be.
        turn = number + self._replaced.get(number, 0)
        return NodeAffinitySchedulingStrategy(nodes[turn % len(nodes)], soft=True)

    def _take_up(self, member: _Member, info: ReplicaInfo) -> None:
        """Checks a replica that has loaded the model.

        Raises:
            EngineError: It did not load, or runs other versions.
        """
        if info.error is not None:
            raise EngineError(f"replica {member.number} on {info.host}: {info.error}")
        own = versions()
        other = {name: found for name, found in info.versions.items() if found != own[name]}
        # The driver needs no vLLM of its own.
        if own["vllm"] is None:
            other.pop("vllm", None)
        if other:
            said = ", ".join(f"{name} {found} (here {own[name]})" for name, found in other.items())
            raise EngineError(
                f"replica {member.number} on {info.host} runs {said}. Install the same versions "
                "on every node: answers could differ"
            )
        member.info, member.call = info, None
        log.info("replica %d runs on %s, pid %d", member.number, info.host, info.pid)

    def _hand_over(
        self,
        member: _Member,
        source: Prefetcher[GenerationRequest],
        again: deque[GenerationRequest],
    ) -> None:
        """Gives an idle replica some more, up to its window, and waits for its next answers."""
        if member.call is not None:
            return
        room = self._settings.window - len(member.pending)
        chunk = max(1, self._settings.max_num_seqs // _CHUNKS)
        batch: list[GenerationRequest] = []
        while len(batch) < min(room, chunk):
            request = again.popleft() if again else source.take(wait=False)
            if request is None:
                break
            batch.append(request)
        member.pending |= {request.request_id: request for request in batch}
        if member.pending:
            hungry = len(batch) < room and not source.exhausted
            wait = _FILL_SECONDS if hungry else _WAIT_SECONDS
            member.call = member.actor.exchange.remote(batch, wait)

    def _collect(
        self, member: _Member, again: deque[GenerationRequest]
    ) -> Generator[Completion, None, None]:
        """Yields what a replica gave back; a lost one is replaced, and its work done again."""
        try:
            found = self._ray.get(member.call)
            if isinstance(found, ReplicaInfo):
                self._take_up(member, found)
                return
        except (self._ray.exceptions.RayError, EngineError) as error:
            yield from self._lose(member, error, again)
            return
        member.call = None
        assert isinstance(found, Exchange)
        member.peak_rss = max(member.peak_rss, found.rss_bytes)
        for completion in found.completions:
            # One of a stream that was given up is nobody's any more.
            if member.pending.pop(completion.request_id, None) is not None:
                self._attempts.pop(completion.request_id, None)
                yield completion

    def _lose(
        self, member: _Member, error: Exception, again: deque[GenerationRequest]
    ) -> Generator[Completion, None, None]:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        log.warning("replica %d is lost: %s", member.number, error)
        self._ray.kill(member.actor)
        self._members.remove(member)
        times = self._replaced.get(member.number, 0)
        if times < _MOST_REPLACEMENTS:
            self._replaced[member.number] = times + 1
            self._members.append(self._add(member.number))
        if not self._members:
            raise EngineDiedError(
                f"All replicas are lost; the last one said: {reason}. What was answered is kept; "
                "the same command goes on from there"
            )
        for request in member.pending.values():
            attempts = self._attempts.get(request.request_id, 0) + 1
            self._attempts[request.request_id] = attempts
            if attempts < _MOST_ATTEMPTS:
                again.append(request)
            else:
                lost = f"{attempts} replicas were lost with it: {reason}"
                yield Completion.failed(request, lost)


def _tensor_parallel(settings: EngineSettings, gpus: int) -> EngineSettings:
    """Spreads the model over the GPUs of a replica, unless the user has said how."""
    arguments = settings.hardware.engine_args
    if gpus < 2 or "tensor_parallel_size" in arguments:
        return settings
    spread = {"tensor_parallel_size": gpus, "distributed_executor_backend": "mp"}
    hardware = settings.hardware.model_copy(update={"engine_args": {**arguments, **spread}})
    return dataclasses.replace(settings, hardware=hardware)

"""Several engines behind one interface: distributes requests, replaces lost engines.

Where they run is left to the classes derived: actors of a Ray cluster, processes of this machine.
Journal, scores and progress stay with the driver. A lost replica loses only what it had in
flight, which the others are asked again.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from slm_vllm.config.engine import EngineConfig
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.engines.replica import Exchange, ReplicaInfo, versions
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineDiedError, EngineError
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

log = logging.getLogger(__name__)

MakeEngine = Callable[[EngineSettings], BaseEngine]

_MOST_REPLACEMENTS = 3  # of one replica in a row; Ray may put some on a node that is dead
_WAIT_SECONDS = 1.0  # of one exchange for a first answer, once the replica has its fill
_FILL_SECONDS = 0.05  # and before, when requests are slow to come
_CHUNKS = 8  # that a full batch is handed over in, so that few rows are shared by all replicas
_POLL_SECONDS = 1.0  # signals are handled between two polls
_SAY_SECONDS = 60.0


class ReplicaLostError(EngineError):
    """A replica that is gone, with its process or its machine."""


class Link(ABC):
    """The driver's end of one replica, which begins to load its engine when this is made.

    One call is out at a time: the load, then one exchange after the other.
    """

    @abstractmethod
    def exchange(self, requests: list[GenerationRequest], wait: float) -> None:
        """Calls `Replica.exchange`; raises nothing."""

    @abstractmethod
    def result(self) -> ReplicaInfo | Exchange:
        """What the call that is out gave back; waits for it.

        Raises:
            ReplicaLostError: The replica is gone.
        """

    @abstractmethod
    def forget_prompts(self) -> None:
        """Calls `Replica.forget_prompts`; what it is asked next, it is asked after that."""

    @abstractmethod
    def end(self) -> None:
        """Asks the replica to end; does not wait."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it whatever it does; one that was asked to end has some seconds for it."""


@dataclass(slots=True, eq=False)
class Member:
    """One replica as the driver sees it.

    Attributes:
        number: Its place, which the one that replaces it takes over.
        link: To its process.
        info: What it said of itself; None while it loads.
        is_busy: Whether a call is out.
        isolates: It is asked only what may have killed others, one after the other.
        pending: What it was asked and has not answered.
        answered: Requests, since it loaded.
        peak_rss: In bytes.
    """

    number: int
    link: Link
    info: ReplicaInfo | None = None
    is_busy: bool = True
    isolates: bool = False
    pending: dict[str, GenerationRequest] = field(default_factory=dict)
    answered: int = 0
    peak_rss: int = 0


class _Backlog:
    """What is still to be asked, in the order in which it should be.

    A request that was in flight when a replica was lost is asked again like any other. The
    second time it is a suspect, and is asked with nothing beside it: so a prompt that kills
    engines is found, and no other row is blamed for it.
    """

    def __init__(self, source: Prefetcher[GenerationRequest]) -> None:
        self.source = source
        self.suspects: deque[GenerationRequest] = deque()
        self._again: deque[GenerationRequest] = deque()
        self._losses: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether everything has been handed over."""
        return self.source.exhausted and not self._again and not self.suspects

    def take(self, *, wait: bool = False) -> GenerationRequest | None:
        """The next request that is no suspect, None if there is none (just now, if not `wait`)."""
        return self._again.popleft() if self._again else self.source.take(wait=wait)

    def put_back(self, request: GenerationRequest) -> None:
        """One that was taken and not handed over."""
        self._again.appendleft(request)

    def settle(self, request_id: str) -> None:
        """Forgets one that is answered."""
        self._losses.pop(request_id, None)

    def lose(self, requests: Sequence[GenerationRequest]) -> tuple[GenerationRequest, int] | None:
        """Takes back what a lost replica had in flight.

        Returns:
            The request that was the cause and how many replicas were lost with it, if one was.
        """
        for request in requests:
            losses = self._losses.get(request.request_id, 0) + 1
            self._losses[request.request_id] = losses
            if losses == 1:
                self._again.append(request)
            elif len(requests) == 1:
                return request, losses
            else:
                self.suspects.append(request)
        return None


class ReplicatedEngine(BaseEngine):
    """Replicas of one engine, each in a process of its own.

    Args:
        settings: Of each replica's engine.
        config: The `engine` section.
        make_engine: Builds the engine, in that process.
    """

    def __init__(
        self,
        settings: EngineSettings,
        config: EngineConfig | None = None,
        *,
        make_engine: MakeEngine,
    ) -> None:
        super().__init__(settings, config)
        self._make_engine = make_engine
        self._members: list[Member] = []
        self._replaced: dict[int, int] = {}

    @abstractmethod
    def _connect(self) -> list[list[int]]:
        """Makes ready to open replicas.

        Returns:
            Their numbers, those together that may load at the same time.
        """

    @abstractmethod
    def _open(self, number: int, times_replaced: int) -> Link:
        """Starts a process that loads a replica."""

    @abstractmethod
    def _ready(self, links: Sequence[Link], seconds: float) -> list[Link]:
        """Those whose call is done or whose process is gone; waits for a first one."""

    @abstractmethod
    def _describe(self, replicas: list[EngineInfo], hosts: list[str]) -> EngineInfo:
        """What the replicas come to, for the manifest."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Undoes `_connect`; may be called more than once."""

    def start(self) -> EngineInfo:
        """Loads the model in every replica.

        Raises:
            EngineError: No replica could load the model.
        """
        waves = self._connect()
        failures = []
        for wave in waves:
            for number in wave:
                self._members.append(Member(number, self._open(number, 0)))
            failures += self._wait_for_all()
        if not self._members:
            several = "No replica could start. The first one said: " if len(failures) > 1 else ""
            raise EngineError(f"{several}{failures[0]}")
        for failure in failures:
            self.say(f"A replica could not start and is left out: {failure}")
        infos = [member.info for member in self._members if member.info is not None]
        replicas = [info.engine for info in infos if info.engine is not None]
        return self._describe(replicas, sorted({info.host for info in infos}))

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        """See `BaseEngine.stream`."""
        if not self._members:
            raise EngineError("The engine is not started")
        backlog = _Backlog(Prefetcher(requests, self._settings.window * len(self._members)))
        for member in self._members:
            member.pending.clear()  # of a stream that was given up
            member.isolates = False
        try:
            while True:
                self._isolate(backlog)
                for member in self._members:
                    self._hand_over(member, backlog)
                if backlog.is_empty and not any(member.pending for member in self._members):
                    return
                yield from self._answers(backlog)
        finally:
            backlog.source.close()

    def forget_prompts(self) -> None:
        """See `BaseEngine.forget_prompts`; called between two streams."""
        for member in self._members:
            if member.info is not None:
                member.link.forget_prompts()

    def close(self) -> None:
        """Ends the replicas, and what was started for them."""
        members, self._members = self._members, []
        for member in members:
            member.link.end()
        for member in members:
            member.link.kill()
        self._disconnect()

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
        while loading := {m.link: m for m in self._members if m.info is None}:
            for link in self._ready(list(loading), _POLL_SECONDS):
                member = loading.pop(link)
                try:
                    self._take_up(member, link.result())
                except EngineError as error:
                    failures.append(str(error))
                    link.kill()
                    self._members.remove(member)
            if time.monotonic() > say_at:
                say_at += _SAY_SECONDS
                log.info("%d replicas are not loaded yet", len(loading))
        return failures

    def _take_up(self, member: Member, info: ReplicaInfo | Exchange) -> None:
        """Checks a replica that has loaded the model.

        Raises:
            EngineError: It did not load, or runs other versions.
        """
        assert isinstance(info, ReplicaInfo)
        if info.error is not None:
            raise EngineError(f"replica {member.number} on {info.host}: {info.error}")
        own = versions()
        other = {name: found for name, found in info.versions.items() if found != own[name]}
        # The driver needs no vLLM of its own.
        if own["vllm"] is None:
            other.pop("vllm", None)
        if other:
            differences = ", ".join(
                f"{name} {found} (here {own[name]})" for name, found in other.items()
            )
            raise EngineError(
                f"replica {member.number} on {info.host} runs {differences}. Install the same "
                "versions on every node: answers could differ"
            )
        member.info, member.is_busy = info, False
        log.info("replica %d runs on %s, pid %d", member.number, info.host, info.pid)

    def _isolate(self, backlog: _Backlog) -> None:
        """Sets a replica apart for what may kill it, if there is such."""
        if not backlog.suspects:
            for member in self._members:
                member.isolates = member.isolates and bool(member.pending)
        elif not any(member.isolates for member in self._members):
            min(self._members, key=lambda member: len(member.pending)).isolates = True

    def _hand_over(self, member: Member, backlog: _Backlog) -> None:
        """Gives an idle replica some more, up to its window, and waits for its next answers."""
        if member.is_busy:
            return
        room = self._settings.window - len(member.pending)
        chunk = max(1, self._settings.max_num_seqs // _CHUNKS)
        batch: list[GenerationRequest] = []
        if not member.isolates:
            while len(batch) < min(room, chunk) and (request := backlog.take()) is not None:
                batch.append(request)
        elif not member.pending:
            batch.append(backlog.suspects.popleft())
        member.pending |= {request.request_id: request for request in batch}
        if member.pending:
            wait = _WAIT_SECONDS
            if not member.isolates and len(batch) < room and not backlog.source.exhausted:
                wait = 0.0 if len(batch) == chunk else _FILL_SECONDS
            member.link.exchange(batch, wait)
            member.is_busy = True

    def _answers(self, backlog: _Backlog) -> Generator[Completion, None, None]:
        """Yields what a first call gave back; with none out, waits for a request."""
        busy = {member.link: member for member in self._members if member.is_busy}
        if not busy:
            if (request := backlog.take(wait=True)) is not None:
                backlog.put_back(request)
            return
        for link in self._ready(list(busy), _POLL_SECONDS):
            yield from self._collect(busy[link], backlog)

    def _collect(self, member: Member, backlog: _Backlog) -> Generator[Completion, None, None]:
        """Yields what a replica gave back; a lost one is replaced, and its work done again."""
        try:
            found = member.link.result()
            if isinstance(found, ReplicaInfo):
                self._take_up(member, found)
                return
        except EngineError as error:
            yield from self._lose(member, error, backlog)
            return
        member.is_busy = False
        member.peak_rss = max(member.peak_rss, found.rss_bytes)
        for completion in found.completions:
            # One of a stream that was given up is nobody's any more.
            if member.pending.pop(completion.request_id, None) is not None:
                backlog.settle(completion.request_id)
                member.answered += 1
                yield completion
        if found.error is not None:
            yield from self._lose(member, ReplicaLostError(found.error), backlog)

    def _lose(
        self, member: Member, error: Exception, backlog: _Backlog
    ) -> Generator[Completion, None, None]:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        log.warning("replica %d is lost: %s", member.number, error)
        self.say(f"Replica {member.number} is lost: {reason}. What it had in flight is asked again")
        member.link.kill()
        self._members.remove(member)
        cause = backlog.lose(list(member.pending.values()))
        if cause is not None:
            request, losses = cause
            lost = f"{losses} replicas were lost with it, the last with nothing beside it: {reason}"
            yield Completion.failed(request, lost)
        self._replace(member, is_explained=cause is not None)
        if not self._members:
            raise EngineDiedError(
                f"All replicas are lost; the last one said: {reason}. What was answered is kept; "
                "the same command resumes from there"
            )

    def _replace(self, member: Member, *, is_explained: bool) -> None:
        """Starts a lost replica again, unless it was lost again and again without much work."""
        enough = 1 if is_explained else self._settings.window
        before = 0 if member.answered >= enough else self._replaced.get(member.number, 0)
        if before < _MOST_REPLACEMENTS:
            self._replaced[member.number] = before + 1
            self._members.append(Member(member.number, self._open(member.number, before + 1)))

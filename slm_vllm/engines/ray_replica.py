"""What runs inside a Ray actor: one engine in a thread, requests in, finished answers out."""

from __future__ import annotations

import os
import platform
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.versions import installed_vllm
from slm_vllm.monitoring.memory import tree_rss
from slm_vllm.types import Completion, EngineInfo, GenerationRequest
from slm_vllm.version import __version__


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """What a replica says of itself once its engine is up, or is not.

    Attributes:
        host: Name of its machine.
        pid: Its process.
        versions: Of what decides the answers: slm-vllm, vLLM, Python.
        engine: What the engine says; None where it did not start.
        error: Why it did not.
    """

    host: str
    pid: int
    versions: dict[str, str | None]
    engine: EngineInfo | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What comes back for requests handed over.

    Attributes:
        completions: Answers that finished since the last exchange.
        rss_bytes: Resident memory of the replica's process tree.
    """

    completions: list[Completion]
    rss_bytes: int


def versions() -> dict[str, str | None]:
    """Of this process; the driver's must be those of every replica."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"slm-vllm": __version__, "vllm": installed_vllm(), "python": python}


class Replica:
    """An engine that answers one endless stream.

    The engine starts and runs in one thread of its own, because threads that a CPU engine binds
    to cores belong to the thread that started it. The calls of the actor only move lists.

    Args:
        make_engine: Builds the engine, in this process.
    """

    def __init__(self, make_engine: Callable[[], BaseEngine]) -> None:
        self._make_engine = make_engine
        self._requests: queue.SimpleQueue[GenerationRequest] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(self) -> ReplicaInfo:
        """Loads the model; what goes wrong is in the result, as text that every driver can read."""
        started: queue.SimpleQueue[EngineInfo | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(started,), name="engine", daemon=True).start()
        found = started.get()
        failed = isinstance(found, Exception)
        return ReplicaInfo(
            host=platform.node(),
            pid=os.getpid(),
            versions=versions(),
            engine=None if isinstance(found, Exception) else found,
            error=f"{type(found).__name__}: {found}" if failed else None,
        )

    def exchange(self, requests: list[GenerationRequest], wait: float) -> Exchange:
        """Takes requests and gives back what has finished, waiting for a first answer.

        Args:
            requests: To be answered.
            wait: Longest wait for an answer, in seconds.

        Raises:
            RuntimeError: The engine died.
        """
        for request in requests:
            self._requests.put(request)
        completions: list[Completion] = []
        try:
            completions.append(self._taken(wait))
            while True:
                completions.append(self._taken(0.0))
        except queue.Empty:
            return Exchange(completions, tree_rss()[0])

    def _taken(self, wait: float) -> Completion:
        item = self._answers.get(timeout=wait) if wait else self._answers.get_nowait()
        if isinstance(item, Exception):
            raise RuntimeError(str(item))
        assert isinstance(item, Completion)
        return item

    def _run(self, started: queue.SimpleQueue[EngineInfo | Exception]) -> None:
        try:
            engine = self._make_engine()
            info = engine.start()
        except Exception as error:
            started.put(error)
            return
        started.put(info)
        try:
            for completion in engine.stream(self._incoming()):
                self._answers.put(completion)
        except Exception as error:
            self._answers.put(error)

    def _incoming(self) -> Iterator[GenerationRequest]:
        while True:
            yield self._requests.get()

"""The process of a replica: one engine in a thread, requests in, finished answers out."""

from __future__ import annotations

import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.versions import installed_vllm
from slm_vllm.monitoring.memory import tree_rss
from slm_vllm.types import Completion, EngineInfo, GenerationRequest
from slm_vllm.version import __version__

_RSS_SECONDS = 1.0  # between two looks at the memory, which read the whole process table


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
        error: How the engine died; None while it lives.
    """

    completions: list[Completion]
    rss_bytes: int
    error: str | None = None


def versions() -> dict[str, str | None]:
    """Of this process; the driver's must be those of every replica."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"slm-vllm": __version__, "vllm": installed_vllm(), "python": python}


class Incoming:
    """Requests as they come, without an end until it is told to stop."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[GenerationRequest | None] = queue.SimpleQueue()

    def put(self, request: GenerationRequest) -> None:
        """Adds one."""
        self._queue.put(request)

    def stop(self) -> None:
        """Ends it behind those that are there; whoever waits for the next one is woken."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[GenerationRequest]:
        return iter(self._queue.get, None)


class Replica:
    """An engine that answers one endless stream, and a new one after it forgot prompts.

    The engine starts and runs in one thread of its own, because threads that a CPU engine binds
    to cores belong to the thread that started it. The calls from outside only move lists.

    Args:
        make_engine: Builds the engine, in this process.
    """

    def __init__(self, make_engine: Callable[[], BaseEngine]) -> None:
        self._make_engine = make_engine
        self._requests = Incoming()
        self._streams: queue.SimpleQueue[Incoming | None] = queue.SimpleQueue()
        self._streams.put(self._requests)
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[EngineInfo | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._rss, self._look_at = 0, 0.0

    def start(self) -> ReplicaInfo:
        """Loads the model; what goes wrong is in the result, as text that every driver can read."""
        self._thread.start()
        found = self._started.get()
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
        """
        for request in requests:
            self._requests.put(request)
        completions: list[Completion] = []
        error = None
        try:
            while error is None:
                left = 0.0 if completions else wait
                item = self._answers.get(timeout=left) if left else self._answers.get_nowait()
                if isinstance(item, Exception):
                    error = f"{type(item).__name__}: {item}"
                else:
                    completions.append(item)
        except queue.Empty:
            pass
        return Exchange(completions, self._rss_bytes(), error)

    def forget_prompts(self) -> None:
        """Has the engine drop what it keeps of prompts, before what it is asked from now on."""
        before, self._requests = self._requests, Incoming()
        self._streams.put(self._requests)
        before.stop()

    def end(self) -> None:
        """Takes no more requests, and returns when the engine has answered and closed."""
        self._streams.put(None)
        self._requests.stop()
        self._thread.join()

    def _rss_bytes(self) -> int:
        if time.monotonic() >= self._look_at:
            self._rss = tree_rss()[0]
            self._look_at = time.monotonic() + _RSS_SECONDS
        return self._rss

    def _run(self) -> None:
        try:
            with self._make_engine() as engine:
                self._started.put(engine.start())
                requests = self._streams.get()
                while requests is not None:
                    for completion in engine.stream(requests):
                        self._answers.put(completion)
                    if (requests := self._streams.get()) is not None:
                        engine.forget_prompts()
        except Exception as error:
            # Whoever waits: `start`, where it did not get so far, or the next exchange.
            self._started.put(error)
            self._answers.put(error)

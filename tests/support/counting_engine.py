"""An engine for replicas: answers with its pid, and dies or fails where a test says so."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineDiedError, EngineError
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

KILLED_BY = 1_000_000
"""A token that kills the process that is asked it."""


@dataclass(frozen=True)
class CountingEngine(BaseEngine):
    """Echoes the first token of each prompt.

    Attributes:
        settings: As for real engines.
        folder: Where each process leaves a file named by its pid.
        die_after: The first process to answer so many requests kills itself; None for none.
        raise_after: The first process to answer so many raises instead; None for none.
        helper: Each process starts one of its own, as vLLM's engines do, and leaves a file of it;
            and one among the temporary files.
        journal: Each process writes down what it was asked, and where it was told to forget, in a
            file `PID.asked`.
        broken: Replicas cannot start.
    """

    settings: EngineSettings
    folder: Path
    die_after: int | None = None
    raise_after: int | None = None
    helper: bool = False
    journal: bool = False
    broken: bool = False

    def start(self) -> EngineInfo:
        if self.broken:
            raise EngineError("no weights here")
        (self.folder / str(os.getpid())).touch()
        self.say("beginning to count")
        if self.helper:
            (self.folder / str(subprocess.Popen(["sleep", "3600"]).pid)).touch()
            Path(tempfile.gettempdir(), f"left_by_{os.getpid()}").touch()
        return EngineInfo("counting", self.settings.max_model_len, {"counted": True})

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        source = Prefetcher(requests, 4)
        try:
            yield from self._answers(source)
        finally:
            source.close()

    def _answers(self, source: Prefetcher[GenerationRequest]) -> Generator[Completion, None, None]:
        answered = 0
        while (request := source.take(wait=True)) is not None:
            token = request.prompt_token_ids[0]
            self._note(request.request_id)
            if answered == self.raise_after and self._first_to_die():
                raise EngineDiedError("the engine died")
            if token == KILLED_BY or (answered == self.die_after and self._first_to_die()):
                os.kill(os.getpid(), signal.SIGKILL)
            answered += 1
            yield Completion(request.request_id, f"{token} by {os.getpid()}", "stop", 1, 1)

    def forget_prompts(self) -> None:
        self._note("forgot")

    def _note(self, line: str) -> None:
        if self.journal:
            with (self.folder / f"{os.getpid()}.asked").open("a") as file:
                file.write(f"{line}\n")

    def _first_to_die(self) -> bool:
        try:
            (self.folder / "dead").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True)
class ThreadedEngine(CountingEngine):
    """Says how many threads torch would compute with, in the thread that it runs in."""

    def start(self) -> EngineInfo:
        import torch

        return EngineInfo("threaded", 128, {"threads": torch.get_num_threads()})


def import_torch() -> None:
    """What the process does that these engines are forked from: all cores are its own."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))


def all_ended(folder: Path) -> bool:
    """Whether every process of these engines is gone; waits for those that are killed already."""
    pids = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    assert pids
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(found, timeout=60)[1]

"""A whole run over replicas of the counting engine, which kills itself where a test says so.

python -m support.replicated_run FOLDER KILL_AT REPLICAS WORD...

The words compose the run. KILL_AT: answers after which the driver is killed, "load" for before
the first, "none"; "stop" for a SIGTERM to it and its engines after 40 answers.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path

import psutil

import support.without_torch  # noqa: F401
from slm_vllm.config.compose import compose_config
from slm_vllm.engines.local_replicas import LocalReplicas
from slm_vllm.engines.replica_plan import ReplicaPlan
from slm_vllm.engines.replicated import Link
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.types import Completion, GenerationRequest
from support.counting_engine import CountingEngine


class DoomedReplicas(LocalReplicas):
    """The driver is killed in the midst of it."""

    folder: Path
    kill_at = "none"

    def _open(self, number: int, times_replaced: int) -> Link:
        link = super()._open(number, times_replaced)
        if self.kill_at == "load":
            for child in psutil.Process().children(recursive=True):
                (self.folder / str(child.pid)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return link

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for number, completion in enumerate(super().stream(requests)):
            if str(number) == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kill_at == "stop" and number == 40:
                for process in [*psutil.Process().children(recursive=True), psutil.Process()]:
                    process.terminate()
            yield completion


def make_engine(folder: Path, replicas: int, settings: EngineSettings) -> LocalReplicas:
    engine = partial(CountingEngine, folder=folder, helper=True, journal=True)
    return DoomedReplicas(settings, make_engine=engine, plan=ReplicaPlan((), replicas, "a test"))


if __name__ == "__main__":
    folder, DoomedReplicas.kill_at, replicas, *words = sys.argv[1:]
    DoomedReplicas.folder = Path(folder)
    make = partial(make_engine, Path(folder), int(replicas))
    options = RunOptions(own_process=True, make_engine=make, import_engine=lambda: None)
    evaluate([compose_config(words)], options)

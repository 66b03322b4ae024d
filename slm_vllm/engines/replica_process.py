"""A replica in a process of this machine, and the driver's end of it.

The two talk over one socket. It closes when the driver ends, however it does, and then the
process ends with all that its engine started; the kernel sees to it.
"""

from __future__ import annotations

import getpass
import logging
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.fork_server import ForkServer
from slm_vllm.engines.replica import Exchange, Replica, ReplicaInfo
from slm_vllm.engines.replicated import Link, ReplicaLostError
from slm_vllm.errors import EngineError
from slm_vllm.types import GenerationRequest

_END_SECONDS = 5.0  # for an engine to close and remove what it shares between its processes
_POLL_SECONDS = 0.01
_FORGET = "forget"
_FILES = "slm-vllm-engine-"
_LONGEST_FOLDER = 40  # of 107 letters; a folder's own name has 25, that of a socket in it 37

_ending = threading.Lock()


class ReplicaProcess(Link):
    """A replica in a process that is forked for it.

    Attributes:
        connection: What its answers are read from.

    Args:
        fork_server: Forks the process; of `main`.
        make_engine: Builds the engine, there; can be pickled.
        environment: Variables that the process gets beside those of this one.
        cores: Those it may use; empty: all.
        threads: Of torch on the CPU; 0: as torch chooses.
    """

    def __init__(
        self,
        fork_server: ForkServer,
        make_engine: Callable[[], BaseEngine],
        environment: Mapping[str, str],
        cores: Sequence[int] = (),
        threads: int = 0,
    ) -> None:
        self._fork_server = fork_server
        self.connection, other = Pipe()
        self._seconds_to_end = 0.0
        self._files = _own_files()
        with other:
            try:
                self._pid = fork_server.fork(other.fileno(), {**environment, **self._files})
            except BaseException:  # what was forked nevertheless ends with this
                self.connection.close()
                _remove_files(self._files)
                raise
        self._send((pickle.dumps(make_engine), tuple(cores), threads))

    def exchange(self, requests: list[GenerationRequest], wait: float) -> None:
        """See `Link.exchange`."""
        self._send((requests, wait))

    def result(self) -> ReplicaInfo | Exchange:
        """See `Link.result`."""
        try:
            found: ReplicaInfo | Exchange = self.connection.recv()
        except (EOFError, OSError):
            raise ReplicaLostError(f"its process {self._ended()}") from None
        return found

    def forget_prompts(self) -> None:
        """See `Link.forget_prompts`."""
        self._send(_FORGET)

    def end(self) -> None:
        """See `Link.end`."""
        self._send(None)
        self._seconds_to_end = _END_SECONDS

    def kill(self) -> None:
        """See `Link.kill`."""
        with suppress(EOFError, OSError):  # the end that is waited for
            while self._seconds_to_end and self.connection.poll(self._seconds_to_end):
                self.connection.recv()
        # What is left of its group, itself or its engine's. It is not reaped before, so its number
        # is nobody else's.
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        self.connection.close()
        self._fork_server.reap(self._pid)
        _remove_files(self._files)

    def _send(self, message: Any) -> None:
        # One that is gone is met when its answer is read.
        with suppress(OSError):
            self.connection.send(message)

    def _ended(self) -> str:
        """How the process ended; it is left to `kill` to reap it."""
        until = time.monotonic() + _END_SECONDS
        try:
            while (found := self._fork_server.status(self._pid)) is None:
                if time.monotonic() > until:
                    return f"{self._pid} hung up"
                time.sleep(_POLL_SECONDS)
        except EngineError:
            return f"{self._pid} is gone"
        code, status = found
        if code == os.CLD_EXITED:
            return f"{self._pid} ended with exit code {status}"
        return f"{self._pid} was ended by {signal.Signals(status).name}"


def ready(links: Sequence[Link], seconds: float) -> list[Link]:
    """Those that have an answer or are gone; waits for a first one."""
    by_connection: dict[Any, Link] = {
        link.connection: link for link in links if isinstance(link, ReplicaProcess)
    }
    return [by_connection[found] for found in wait(list(by_connection), seconds)]


def _own_files() -> dict[str, str]:
    """Variables that have an engine keep sockets and rendezvous files in a folder of its own.

    One that is killed leaves them behind, and elsewhere nobody can tell whose they are.
    """
    usual = tempfile.gettempdir()
    if len(usual) > _LONGEST_FOLDER:
        return {}
    found = {"TMPDIR": tempfile.mkdtemp(prefix=_FILES)}
    with suppress(KeyError, OSError):  # a user without a name
        # What torch compiles is for the next engine too, so it stays where torch would keep it.
        compiled = os.path.join(usual, f"torchinductor_{getpass.getuser()}")
        found["TORCHINDUCTOR_CACHE_DIR"] = os.environ.get("TORCHINDUCTOR_CACHE_DIR", compiled)
    return found


def _remove_files(environment: Mapping[str, str]) -> None:
    """Removes the folder that `_own_files` has made."""
    folder = environment.get("TMPDIR", "")
    if os.path.basename(folder).startswith(_FILES):
        shutil.rmtree(folder, ignore_errors=True)


def main(descriptor: int) -> None:
    """Loads the engine and answers the driver until it says that this is the end."""
    tempfile.tempdir = None  # an import may have asked for it in the process that this is forked of
    _log_beside_the_engine()
    connection = Connection(descriptor)
    threading.Thread(target=_end_with_driver, args=(descriptor,), daemon=True).start()
    try:
        _serve(connection)
    except (EOFError, ConnectionError):
        _end_group()
    sys.stdout.flush()
    os._exit(0)  # threads of an engine may have no end


def _log_beside_the_engine() -> None:
    """Writes what is logged here to standard error, where vLLM writes, and so to `engine.log`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s [%(process)d] %(message)s"))
    own = logging.getLogger(__name__.partition(".")[0])
    own.addHandler(handler)
    own.setLevel(logging.INFO)


def _serve(connection: Connection) -> None:
    pickled, cores, threads = connection.recv()
    if cores:
        os.sched_setaffinity(0, cores)
    replica = Replica(partial(_made_with, threads, pickle.loads(pickled)))
    connection.send(replica.start())
    while (message := connection.recv()) is not None:
        if message == _FORGET:
            replica.forget_prompts()
        else:
            connection.send(replica.exchange(*message))
    replica.end()


def _made_with(threads: int, make_engine: Callable[[], BaseEngine]) -> BaseEngine:
    """Makes the engine, in its thread, with so many threads of OpenMP.

    OpenMP has read the environment in the process that this one was forked from, if it was. More
    threads than cores wait for each other a time slice at every step.
    """
    if threads and ("torch" in sys.modules or "OMP_NUM_THREADS" not in os.environ):
        with suppress(ImportError):  # an engine that needs none
            import torch

            torch.set_num_threads(threads)
    return make_engine()


def _end_with_driver(descriptor: int) -> None:
    """Waits until the driver's end of the socket is closed, while the engine loads for example."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # a hang-up is told of always
    hung_up.poll()
    _end_group()


def _end_group() -> None:
    """Ends this process with all that its engine started, at once."""
    with _ending:
        _remove_files(os.environ)
        os.killpg(0, signal.SIGKILL)

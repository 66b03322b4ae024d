"""A fork server: the process that engine processes are forked from.

python -m slm_vllm.engines.fork_server FILE_DESCRIPTOR [FUNCTION]

Importing vLLM takes seconds of a core. The server imports it once for all engines, before their
settings are known: while the driver reads the data and loads the tokenizer. A process that replaces
a lost engine has nothing left to import.

The server talks to the driver over one socket and ends when that closes. It reaps a process it
forked only when told to, so that the pid cannot be reused before.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from slm_vllm.errors import EngineError
from slm_vllm.parallel import import_path

SPAWN_VARIABLE = "VLLM_WORKER_MULTIPROC_METHOD"
"""vLLM's own; `spawn`: nothing is forked."""

_MODULE = "slm_vllm.engines.fork_server"
_UNKNOWN = "unknown"
_OUTPUTS = (1, 2)  # descriptors of standard output and error
_LOG_CHUNK = 1 << 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_started: list[subprocess.Popen[bytes]] = []  # kept: one that is forgotten is reaped by itself


class ForkServer(AbstractContextManager["ForkServer"]):
    """The driver's end of a fork server, which `begin` or the first `fork` starts.

    Args:
        run: What a forked process does with the descriptor of its socket; a module-level function.
        prepare: Imports what `run` needs; likewise. Its errors are ignored: `run` will meet them.
    """

    def __init__(self, run: Callable[[int], None], prepare: Callable[[], None] | None = None):
        self._run, self._prepare = run, prepare
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._output: BinaryIO | None = None
        self._n_logged = 0
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def begin(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts the server unless it runs; does not wait for it.

        Args:
            environment: Variables that an import may read, beside those of this process.
        """
        with self._lock:
            self._environment = dict(environment or {})
            self._begin()

    def fork(self, descriptor: int, environment: Mapping[str, str]) -> int:
        """Forks a process and returns its pid; waits until the imports are done.

        Args:
            descriptor: Its end of a socket.
            environment: Variables that it gets beside those of this process.

        Raises:
            EngineError: The server died while it imported.
        """
        with self._lock:
            for _ in range(2):  # one that was killed since is started again
                connection = self._begin()
                try:
                    connection.send(("fork", dict(environment)))
                    for number in (descriptor, *_OUTPUTS):
                        send_handle(connection, number, None)
                    pid: int = connection.recv()
                    self._tell_output()
                except (EOFError, OSError):
                    self._close()
                except BaseException:  # a signal: the next request must not get this one's answer
                    self._close()
                    raise
                else:
                    return pid
        raise EngineError(
            "the process that engines are forked from ended while it imported what they need; "
            "engine.log in the run folder may say why"
        )

    def status(self, pid: int) -> tuple[int, int] | None:
        """How a process ended, as `os.waitid` has it: code and status.

        None while it runs.

        Raises:
            EngineError: It is not known any more.
        """
        found: tuple[int, int] | None = self._ask("status", pid)
        return found

    def reap(self, pid: int) -> None:
        """Reaps a process that was killed; its pid may be reused from now on."""
        with suppress(EngineError):
            self._ask("reap", pid)

    def close(self) -> None:
        """Ends the server, not the processes it forked."""
        with self._lock:
            self._close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> Connection:
        if self._connection is None:
            self._connection, other = Pipe()
            # It begins before the run has a log.
            self._output, self._n_logged = TemporaryFile(), 0  # noqa: SIM115
            with other:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", _MODULE, str(other.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[other.fileno()],
                    env={**os.environ, **import_path(), **self._environment},
                    start_new_session=True,  # Ctrl-C in the terminal is for the run
                )
            with suppress(OSError):  # one that is gone is met at the first request
                self._connection.send_bytes(pickle.dumps((self._run, self._prepare)))
        return self._connection

    def _ask(self, request: str, pid: int) -> Any:
        with self._lock:
            try:
                if self._connection is None:
                    raise EOFError  # it was closed
                self._connection.send((request, pid))
                found = self._connection.recv()
            except (EOFError, OSError):
                found = _UNKNOWN
            except BaseException:
                self._close()
                raise
        if found == _UNKNOWN:
            raise EngineError(f"how process {pid} ended is not known")
        return found

    def _tell_output(self) -> None:
        """Writes on to standard error what its process has written."""
        if self._output is not None:
            # The two share the file's offset, where its process writes on; `pread` leaves it.
            found = os.pread(self._output.fileno(), _LOG_CHUNK, self._n_logged)
            self._n_logged += len(found)
            with suppress(OSError):
                os.write(_OUTPUTS[1], found)

    def _close(self) -> None:
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._tell_output()
        if self._output is not None:
            self._output.close()
        self._process = self._connection = self._output = None


def main(descriptor: int) -> None:
    """Imports what is needed, then does what the driver asks for until its socket closes."""
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        run, prepare = pickle.loads(connection.recv_bytes())
        if prepare is not None:
            began = time.monotonic()
            with suppress(Exception):
                prepare()
            # `start_log` finds it, beside what vLLM says of its own start.
            print(f"Imports took {time.monotonic() - began:.2f} s", flush=True)
        while True:
            request, argument = connection.recv()
            connection.send(
                _fork(run, argument, connection) if request == "fork" else _look(request, argument)
            )
    os._exit(0)


def _fork(run: Callable[[int], None], environment: Mapping[str, str], driver: Connection) -> int:
    descriptor, *outputs = (recv_handle(driver) for _ in range(1 + len(_OUTPUTS)))
    try:
        return _forked(run, descriptor, outputs, environment, driver)
    finally:
        for number in outputs:
            os.close(number)


def _forked(
    run: Callable[[int], None],
    descriptor: int,
    outputs: Sequence[int],
    environment: Mapping[str, str],
    driver: Connection,
) -> int:
    if _is_told_to_spawn(environment) or _holds_cuda():
        return _start(run, descriptor, outputs, environment)
    sys.stdout.flush()  # once, not in every process
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Of threads; those of numpy's library, the only ones here, can stand it.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    try:
        driver.close()
        for number, own in zip(outputs, _OUTPUTS, strict=True):
            os.dup2(number, own)
            os.close(number)
        os.setsid()  # its group is what its engine starts
        os.environ.update(environment)
        if _cannot_use_cuda():
            os.set_inheritable(descriptor, True)
            os.execve(sys.executable, _fresh(run, descriptor), dict(os.environ))
        run(descriptor)
    finally:
        os._exit(1)


def _is_told_to_spawn(environment: Mapping[str, str]) -> bool:
    """Whether vLLM's own variable says that nothing is to be forked."""
    return environment.get(SPAWN_VARIABLE, os.environ.get(SPAWN_VARIABLE)) == "spawn"


def _holds_cuda() -> bool:
    """Whether an import has begun to use a GPU, which a process that is forked then cannot."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _cannot_use_cuda() -> bool:
    """Whether torch counted GPUs before this process was forked, after which it refuses them."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda._is_in_bad_fork())


def _fresh(run: Callable[[int], None], descriptor: int) -> list[str]:
    """The command that does in a new process what a forked one would do."""
    return [sys.executable, "-m", _MODULE, str(descriptor), pickle.dumps(run).hex()]


def _start(
    run: Callable[[int], None],
    descriptor: int,
    outputs: Sequence[int],
    environment: Mapping[str, str],
) -> int:
    """As `_fork`, in a process that imports everything itself."""
    out, err = outputs
    process = subprocess.Popen(
        _fresh(run, descriptor),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        pass_fds=[descriptor],
        env={**os.environ, **environment},
        start_new_session=True,
    )
    os.close(descriptor)
    _started.append(process)
    return process.pid


def _look(request: str, pid: int) -> tuple[int, int] | str | None:
    """Does what is asked about a process, which may be one of another fork server."""
    try:
        if request == "reap":
            os.waitpid(pid, 0)
            return None
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return _UNKNOWN
    return None if found is None else (found.si_code, found.si_status)


if __name__ == "__main__":
    for number in _SIGNALS:
        # A signal to every process of a job is for the driver. No SIG_IGN, which what is forked
        # would pass on to what it starts.
        signal.signal(number, lambda *_: None)
    if len(sys.argv) > 2:
        pickle.loads(bytes.fromhex(sys.argv[2]))(int(sys.argv[1]))
    else:
        main(int(sys.argv[1]))

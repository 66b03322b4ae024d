"""Work done ahead by threads or processes, with results in order.

`python -m slm_vllm.parallel` is a process of `Workers`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    pool: Executor, work: Callable[[T], R], items: Iterable[T], ahead: int
) -> Generator[R, None, None]:
    """Yields `work(item)` of each item, in the order of the items; closes the pool at the end.

    Args:
        pool: Threads or processes.
        work: What is done; an error of it is raised here, at its item's turn.
        items: Read as far as `ahead` goes, in the caller's thread. An error of theirs is raised
            when all results before it were taken.
        ahead: Items under way or done at most, before the first of them is taken.
    """
    waiting: deque[Future[R]] = deque()
    source = iter(items)
    failure: BaseException | None = None
    more = True
    with pool:
        try:
            while more or waiting:
                while more and len(waiting) < ahead:
                    try:
                        waiting.append(pool.submit(work, next(source)))
                    except StopIteration:
                        more = False
                    except Exception as error:
                        failure, more = error, False
                if waiting:
                    yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    if failure is not None:
        raise failure


def import_path() -> dict[str, str]:
    """Variables for another process: what can be imported here can be there, and nothing else."""
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}


def usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Workers(Generic[T, R]):
    """Processes that do one kind of work, for what holds the interpreter lock.

    Unlike those of multiprocessing they import no module of the caller's script, which therefore
    needs no guard, and they are not forked from a process with threads. They end with the process
    that made them, however it ends. Ctrl-C is for that one alone.

    Args:
        work: A function of a module, or a `functools.partial` of one. What it raises is raised by
            `do`.
        n: Processes.
    """

    def __init__(self, work: Callable[[T], R], n: int) -> None:
        self._work = work
        self._processes = [_start(work) for _ in range(n)]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    def map(self, items: Iterable[T]) -> Generator[R, None, None]:
        """See `in_order`; the processes end with it."""
        n = len(self._processes)
        try:
            yield from in_order(ThreadPoolExecutor(n), self._do, items, 2 * n)
        finally:
            for process in self._processes:
                process.kill()
                process.communicate()

    def _do(self, item: T) -> R:
        process = self._idle.get()
        try:
            assert process.stdin is not None and process.stdout is not None
            pickle.dump(item, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            result, error = pickle.load(process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            return self._work(item)  # the process is dead: killed for its memory, or never begun
        finally:
            self._idle.put(process)
        if error is not None:
            raise error
        found: R = result
        return found


def _start(work: Callable[..., Any]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **import_path(), "POLARS_MAX_THREADS": "1"},
    )
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it is dead already
        pickle.dump(work, process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
    return process


def _serve() -> None:
    """Does what comes from standard input until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the work prints is no result
    try:
        work = pickle.load(sys.stdin.buffer)
        while True:
            item = pickle.load(sys.stdin.buffer)
            outcome: tuple[Any, Exception | None]
            try:
                outcome = work(item), None
            except Exception as error:
                outcome = None, error
            pickle.dump(outcome, results, pickle.HIGHEST_PROTOCOL)
            results.flush()
    except EOFError:
        pass


if __name__ == "__main__":
    _serve()

"""Transfers the parts of one object in several threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TextIO, TypeVar

from slm_vllm.storage.faults import S3Error
from slm_vllm.storage.progress import ByteProgress

Item = TypeVar("Item")

MAX_PARTS = 1000
"""Of one object. Amazon takes 10,000; Swift, unless told otherwise, only these."""

_MIB = 1 << 20
_TICK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How files are moved.

    Attributes:
        force: Overwrite what is newer or different.
        dry_run: Say what would be done, and do nothing.
        part_size: Bytes of one part; larger for objects that would have too many of them.
        workers: Threads for one file.
        attempts: Tries of one part without a byte of progress between.
        pause: Seconds before the second try; doubled each time.
        progress: Where to show how far it is.
    """

    force: bool = False
    dry_run: bool = False
    part_size: int = 16 << 20
    workers: int = 4
    attempts: int = 5
    pause: float = 0.5
    progress: TextIO | None = None

    def part_size_for(self, size: int) -> int:
        """The part size for an object of so many bytes."""
        needed = -(-size // MAX_PARTS)
        if needed <= self.part_size:
            return self.part_size
        return -(-needed // _MIB) * _MIB


@dataclass(frozen=True, slots=True)
class Parts:
    """The stretches of a file that are moved one by one, numbered from 0.

    Attributes:
        size: Bytes of the file.
        part_size: Bytes of each part but the last.
    """

    size: int
    part_size: int

    def __len__(self) -> int:
        return -(-self.size // self.part_size)

    def start(self, number: int) -> int:
        """Where a part begins."""
        return number * self.part_size

    def length(self, number: int) -> int:
        """Bytes of a part."""
        return min(self.part_size, self.size - self.start(number))


class Stopped(Exception):
    """Another part has failed, or the user has had enough."""


class PartRunner:
    """Runs a function over parts in threads; the first failure stops them all.

    Args:
        options: How many threads, how often to try.
        progress: Shown while waiting.
    """

    def __init__(self, options: TransferOptions, progress: ByteProgress) -> None:
        self._options, self._progress = options, progress
        self._stop = threading.Event()

    def check(self) -> None:
        """Raises `Stopped` when there is no sense in going on."""
        if self._stop.is_set():
            raise Stopped

    def pause(self, failures: int) -> None:
        """Waits before another try; ends early when everything is stopped."""
        seconds = min(self._options.pause * 2 ** (failures - 1), 20.0)
        self._stop.wait(seconds * random.uniform(0.5, 1.0))
        self.check()

    def retrying(self, attempt: Callable[[], bool]) -> None:
        """Calls `attempt` until it says that all is done.

        Args:
            attempt: Gives True when done, False when it got further and has to be called again.

        Raises:
            S3Error: It failed with the same place for the last time, or in a way that stays.
        """
        failures = 0
        while True:
            self.check()
            try:
                if attempt():
                    return
                failures = 0
            except S3Error as error:
                failures += 1
                if not (error.transient or error.unreachable) or failures >= self._options.attempts:
                    raise
                self.pause(failures)

    def run(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Does the work for every item.

        Raises:
            S3Error: Of the first part that failed.
        """
        with ThreadPoolExecutor(self._options.workers, thread_name_prefix="s3") as pool:
            futures: set[Future[None]] = {pool.submit(work, item) for item in items}
            try:
                while futures:
                    done, futures = wait(futures, _TICK_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    self._progress.tick()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                self._progress.close()

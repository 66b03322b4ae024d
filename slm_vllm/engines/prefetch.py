"""Reads an iterable ahead in another thread, into a bounded queue."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class Prefetcher(Generic[T]):
    """Runs `source` in a thread and keeps at most `size` of its items waiting.

    What the source raises is raised again by `take`. `close` stops the thread after the item it
    is making; a source that may wait forever has a method `stop`, which is called then.
    """

    def __init__(self, source: Iterable[T], size: int) -> None:
        self._queue: queue.Queue[object] = queue.Queue(maxsize=max(1, size))
        self._stop = threading.Event()
        self._stop_source = getattr(source, "stop", lambda: None)
        self._error: BaseException | None = None
        self._exhausted = False
        self._thread = threading.Thread(
            target=self._read, args=(source,), name="prefetch", daemon=True
        )
        self._thread.start()

    @property
    def exhausted(self) -> bool:
        """Whether everything has been taken."""
        return self._exhausted

    def take(self, *, wait: bool) -> T | None:
        """The next item, or None when there is none (at the end, or just now if not `wait`)."""
        if self._exhausted:
            return None
        try:
            item = self._queue.get(block=wait)
        except queue.Empty:
            return None
        if item is _END:
            self._exhausted = True
            if self._error is not None:
                raise self._error
            return None
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Stops reading and waits for the thread; nothing can be taken afterwards."""
        self._stop.set()
        self._stop_source()
        while self._thread.is_alive():
            # The thread may be waiting for room in the queue.
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._thread.join()
        self._exhausted = True

    def _read(self, source: Iterable[T]) -> None:
        try:
            for item in source:
                self._put(item)
                if self._stop.is_set():
                    break
        except BaseException as error:  # raised again in the thread that takes
            self._error = error
        self._put(_END)

    def _put(self, item: object) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

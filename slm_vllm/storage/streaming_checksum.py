"""Hashes a file while its parts arrive, so that verification adds little time."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from slm_vllm.durable import blocks
from slm_vllm.storage.checksums import Checksum
from slm_vllm.storage.parts import Parts


class StreamingChecksum:
    """Feeds a checksum with the whole parts of a file, in order, from a thread of its own.

    What it reads was just written, so it comes from memory.

    Args:
        path: The file, already of its final size.
        parts: Its parts.
        checksum: What is fed.
        done: Numbers of the parts that are there from the start.
    """

    def __init__(self, path: Path, parts: Parts, checksum: Checksum, done: Iterable[int]) -> None:
        self._path, self._parts = path, parts
        self._checksum, self._done = checksum, set(done)
        self._changed = threading.Condition()
        self._stopped = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._follow, name="s3-checksum", daemon=True)
        self._thread.start()

    def arrived(self, number: int) -> None:
        """Says that a part is whole."""
        with self._changed:
            self._done.add(number)
            self._changed.notify()

    def wait(self) -> None:
        """Waits until the checksum has seen the whole file. All parts have arrived."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends without a result, where parts will not arrive."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _may_go_on(self, number: int) -> bool:
        return self._stopped or number in self._done

    def _follow(self) -> None:
        try:
            for number in range(len(self._parts)):
                with self._changed:
                    self._changed.wait_for(partial(self._may_go_on, number))
                stretch = self._parts.start(number), self._parts.length(number)
                for block in blocks(self._path, *stretch):
                    if self._stopped:
                        return
                    self._checksum.update(block)
        except OSError as error:
            self._error = error

"""Progress of a transfer: one line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TextIO

from slm_vllm.amounts import format_clock, format_size

_TERMINAL_SECONDS = 0.5
_PLAIN_SECONDS = 10.0


class ByteProgress:
    """Counts bytes of one transfer, from several threads.

    Args:
        label: The file.
        total: Its bytes.
        before: Bytes an earlier attempt moved; they do not count for the rate.
        out: Where to show it; None shows nothing.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        label: str,
        total: int,
        before: int = 0,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._before = label, total, before
        self._out, self._clock = out, clock
        self._moved = 0
        self._lock = threading.Lock()
        self._started = self._shown_at = clock()
        self._redraws = out is not None and out.isatty()
        self._width = 0

    def add(self, n_bytes: int) -> None:
        """Counts bytes; a negative number takes back what has to be sent again."""
        with self._lock:
            self._moved += n_bytes

    def tick(self) -> None:
        """Shows the state when it is time to."""
        every = _TERMINAL_SECONDS if self._redraws else _PLAIN_SECONDS
        if self._out is not None and self._clock() - self._shown_at >= every:
            self._shown_at = self._clock()
            self._write(self.line())

    def close(self) -> None:
        """Takes the redrawn line away."""
        if self._redraws and self._width and self._out is not None:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()

    def line(self) -> str:
        """The state as one line of text."""
        done = self._before + self._moved
        seconds = max(self._clock() - self._started, 1e-9)
        rate = self._moved / seconds
        share = 100 * done // self._total if self._total else 100
        parts = [
            f"{self._label}: {format_size(done)} of {format_size(self._total)}",
            f"{share} %",
            f"{format_size(rate)}/s",
        ]
        if rate > 0:
            parts.append(f"ETA {format_clock((self._total - done) / rate)}")
        return "  ".join(parts)

    def _write(self, line: str) -> None:
        assert self._out is not None
        if self._redraws:
            self._out.write("\r" + line.ljust(self._width))
            self._width = max(self._width, len(line))
        else:
            self._out.write(line + "\n")
        self._out.flush()

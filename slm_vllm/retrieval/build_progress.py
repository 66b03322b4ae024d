"""Formats the progress of an index build."""

from __future__ import annotations

import time
from collections.abc import Callable

from slm_vllm.amounts import format_clock

SECONDS_BETWEEN_LINES = 30.0


class BuildProgress:
    """Says phase, count, rate and time left now and then; a `BuildMonitor.progress`.

    Args:
        show: Takes a line, and whether it is the last one of a phase.
        every: Seconds from line to line.
    """

    def __init__(
        self, show: Callable[[str, bool], None], every: float = SECONDS_BETWEEN_LINES
    ) -> None:
        self._show, self._every = show, every
        self._phase = ""
        self._begin = (0, 0.0)
        self._shown = time.monotonic()

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        """See `BuildMonitor.progress`."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._begin = phase, (done, now)
        if now - self._shown < self._every:
            return
        self._shown = now
        of = f" of {total:,}" if total else ""
        self._show(f"{phase}: {done:,}{of}{self._pace(done, total, now)}", done == total)

    def _pace(self, done: int, total: int | None, now: float) -> str:
        first, begin = self._begin
        if done <= first or now - begin < 1:
            return ""
        rate = (done - first) / (now - begin)
        left = f", {format_clock((total - done) / rate)} left" if total and done < total else ""
        return f", {rate:,.0f}/s{left}"

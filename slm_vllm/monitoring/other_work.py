"""How busy other processes kept the CPU during a measurement."""

from __future__ import annotations

import contextlib
import time

import psutil


class OtherWork:
    """Watches from when it is made; processes of this one's tree are not the others."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._all, self._own = _busy_seconds(), _own_seconds()

    def cores_busy(self) -> float:
        """Cores that other processes kept busy since, on average; what a hypervisor took included.

        A process of the tree that ended in between is counted among the others.
        """
        seconds = time.monotonic() - self._begun
        others = (_busy_seconds() - self._all) - (_own_seconds() - self._own)
        return round(max(0.0, others / seconds), 2) if seconds else 0.0


def _busy_seconds() -> float:
    """Processor seconds of the whole machine in which a core did not idle."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - getattr(times, "iowait", 0.0))


def _own_seconds() -> float:
    """Processor seconds of this process and of those below it that are alive."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total

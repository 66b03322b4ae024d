"""Memory that forked processes share, and each of them counts as its own."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

_PROC = Path("/proc")
_LOOK_SECONDS = 10.0  # between two looks at the same processes; one takes some 10 ms of each


class SharedPages:
    """What the sum of the resident memory of processes has more than once.

    A forked process shares the pages of its parent until either writes to them. Files that are
    mapped (libraries) are not looked at: each process counts them, forked or not.
    """

    def __init__(self) -> None:
        self._pids: frozenset[int] = frozenset()
        self._look_at = 0.0
        self._bytes = 0

    def counted_again(self, pids: Collection[int]) -> int:
        """Bytes to take from the sum; 0 where the kernel does not tell.

        Args:
            pids: All that may share: a process and its descendants.
        """
        now, found = time.monotonic(), frozenset(pids)
        if found != self._pids or now >= self._look_at:
            self._pids, self._look_at = found, now + _LOOK_SECONDS
            self._bytes = sum(map(_others_part, found)) if len(found) > 1 else 0
        return self._bytes


def _others_part(pid: int) -> int:
    """Bytes of a process's own (anonymous) memory that fall to those it shares pages with.

    The kernel divides each page by the number of its users (Pss), so that the parts of all make
    one page.
    """
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split()[0]: int(line.split()[1]) for line in lines}
        return (sizes["Anonymous:"] - sizes["Pss_Anon:"]) << 10
    except (OSError, ValueError, IndexError, KeyError):
        return 0  # it has ended, is another user's, or this is no Linux from 5.3 on

"""The spool: a run's events, append-only, for the publisher to read while the run goes on."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from slm_vllm.rundir.names import SPOOL
from slm_vllm.tracking.events import Event, from_line, identity, to_line

SYNC_SECONDS = 5.0


class Spool:
    """The writing end.

    An event that says again what the spool says already (a finished run that is started again)
    is not written twice.

    Args:
        path: The file; a torn last line is dropped.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._written: dict[str, bytes] = {}
        end = 0
        if path.exists():
            for event, behind in read_spool(path):
                self._is_news(event, to_line(event))
                end = behind
            os.truncate(path, end)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._end = end
        self._synced_at = time.monotonic()

    def append(self, *events: Event, durable: bool = False) -> None:
        """Writes events; they survive the process at once, the machine after a sync.

        Args:
            *events: The events.
            durable: Sync now and not within `SYNC_SECONDS`.

        Raises:
            OSError: They could not be written; the spool is as it was.
        """
        lines = [(event, to_line(event)) for event in events]
        data = b"".join(line for event, line in lines if self._is_news(event, line))
        if os.write(self._file, data) != len(data):
            os.ftruncate(self._file, self._end)
            raise OSError("the disk is full")
        self._end += len(data)
        if durable or time.monotonic() - self._synced_at >= SYNC_SECONDS:
            os.fsync(self._file)
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Syncs and closes; may be called more than once."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def _is_news(self, event: Event, line: bytes) -> bool:
        key = identity(event)
        if key is None:
            return True
        digest = hashlib.blake2b(line, digest_size=16).digest()
        if self._written.get(key) == digest:
            return False
        self._written[key] = digest
        return True


def spool_size(folder: Path) -> int:
    """Bytes that a run has said so far."""
    try:
        return (folder / SPOOL).stat().st_size
    except OSError:
        return 0


def read_spool(path: Path, start: int = 0) -> Iterator[tuple[Event, int]]:
    """Yields each event from a byte offset on, with the offset behind it.

    A last line that is not whole yet is left for the next time; a damaged one is skipped.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                event = from_line(line)
            except ValueError:
                continue
            yield event, start

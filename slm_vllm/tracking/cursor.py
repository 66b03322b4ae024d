"""How far a run's spool is published; written before and after each batch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slm_vllm import durable
from slm_vllm.rundir.names import TRACKING


@dataclass(frozen=True, slots=True)
class Span:
    """A part of spool and log that is sent as one.

    Attributes:
        spool_to: Byte offset in the spool behind it.
        log_to: Byte offset in the log behind it.
        time: Milliseconds since 1970 of its first text; the others follow by one.
    """

    spool_to: int
    log_to: int
    time: int


@dataclass
class Cursor:
    """What is acknowledged, and what may have arrived without an acknowledgement.

    Attributes:
        destination: The server; at another one everything is new.
        spool: Byte offset in the spool.
        log: Byte offset in the log.
        texts: Texts that were acknowledged.
        time: Time of the last text; each is later than the one before.
        pending: What was being sent; still there after a restart, it may have arrived.
        deferred: Byte offsets of files in the spool that could not be stored yet.
        ended: The phase the service was told.
        delivered: Everything was read back.
        problem: Why not.
        url: Where a browser shows the run.
        memory: The tracker's own.
    """

    destination: str = ""
    spool: int = 0
    log: int = 0
    texts: int = 0
    time: int = 0
    pending: Span | None = None
    deferred: list[int] = field(default_factory=list)
    ended: str | None = None
    delivered: bool = False
    problem: str | None = None
    url: str | None = None
    memory: dict[str, Any] = field(default_factory=dict)


def cursor_path(folder: Path, tracker: str) -> Path:
    """Where a run folder keeps how far it is published through a tracker."""
    return folder / TRACKING / f"{tracker}.json"


def load_cursor(path: Path, destination: str) -> Cursor:
    """Reads a cursor; a missing or damaged one, or one of another server, starts over."""
    cursor = read_cursor(path)
    if cursor is None:
        return Cursor(destination=destination)
    # A run of a queue belongs to its task, also when it is synced by hand (no task named) later.
    server = cursor.destination.partition("#")[0]
    if destination not in (cursor.destination, server):
        return Cursor(destination=destination)
    return cursor


def read_cursor(path: Path) -> Cursor | None:
    """Reads a cursor as it is, None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pending = content.pop("pending")
        return Cursor(**content, pending=Span(**pending) if pending else None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save_cursor(path: Path, cursor: Cursor) -> None:
    """Replaces the file as a whole, on the disk when it returns."""
    # The lock of a delivery makes its process the only writer.
    partial = path.with_name(f".{path.name}.partial")
    durable.write_text(path, json.dumps(asdict(cursor)), partial)

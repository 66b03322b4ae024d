"""Keeps a log from filling the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LOG_BYTES = 16 << 20
LOGS_KEPT = 3


def rotated(log: Path, age: int = 1) -> Path:
    """Where the log before this one is, or the one `age` rotations back."""
    return log.with_name(f"{log.name}.{age}")


def rotate(log: Path) -> None:
    """Copies a log to `<log>.1`, older ones to `.2` and `.3`, and empties it.

    Processes that have it open for appending (vLLM's engine, the publisher) go on writing to it;
    a log that was renamed would keep them, and grow. What they write between the last look
    and the emptying is lost: microseconds once in 16 MiB.

    Raises:
        OSError: It cannot be copied; the log stays as it is.
    """
    partial = log.with_name(f".{log.name}.partial")
    try:
        with log.open("rb") as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target)
            for age in range(LOGS_KEPT - 1, 0, -1):
                if rotated(log, age).exists():
                    os.replace(rotated(log, age), rotated(log, age + 1))
            shutil.copyfileobj(source, target)
            target.flush()
            os.truncate(log, 0)
        os.replace(partial, rotated(log))
    finally:
        partial.unlink(missing_ok=True)

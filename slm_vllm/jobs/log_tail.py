"""Reads and follows the end of a run's log."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slm_vllm.errors import ConfigError
from slm_vllm.jobs.job import Job
from slm_vllm.rundir.files import unreadable
from slm_vllm.rundir.log_rotation import rotated

_BLOCK_BYTES = 1 << 16
_LOOK_SECONDS = 0.2


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log file, read from its end.

    Raises:
        ConfigError: There is no log yet.
        StorageError: It cannot be read.
    """
    with _open_log(log) as file:
        file.seek(_start_of_last(file, count))
        return file.read().decode("utf-8", errors="replace").splitlines()


def _open_log(log: Path) -> BinaryIO:
    try:
        return log.open("rb")
    except FileNotFoundError:
        raise ConfigError(f"{log}: this run has written no log yet") from None
    except OSError as error:
        raise unreadable(log, error) from None


def _start_of_last(file: BinaryIO, count: int) -> int:
    """Where the last `count` lines begin."""
    start = end = file.seek(0, 2)
    data = b""
    # One line break more than lines: the one that ends the line before them.
    while start > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK_BYTES, start)
        start -= size
        file.seek(start)
        data = file.read(size) + data
    kept = b"".join(data.splitlines(keepends=True)[-count:]) if count else b""
    return end - len(kept)


class LogFollower:
    """Reads what is added to a log, across its rotation.

    A rotated log was copied to `<log>.1` and emptied; a run with `--overwrite` makes a new file.

    Args:
        log: The file.
        lines: How many of its present lines to begin with.

    Raises:
        ConfigError: There is no log yet.
        StorageError: It cannot be read.
    """

    def __init__(self, log: Path, lines: int = 0) -> None:
        self._log = log
        self._file = _open_log(log)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._file.seek(_start_of_last(self._file, lines))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def new_text(self) -> str:
        """What was added since the last call."""
        text = self._rest()
        try:
            status = self._log.stat()
        except FileNotFoundError:
            return text  # `--overwrite` has removed it and made no new one yet
        if not self._is_open_file(status.st_dev, status.st_ino):
            self._file.close()
            self._file = _open_log(self._log)
            text += self._rest()
        elif status.st_size < self._file.tell():
            text += self._rest_of_rotated(self._file.tell())
            self._file.seek(0)
            text += self._rest()
        return text

    def _rest_of_rotated(self, start: int) -> str:
        try:
            with rotated(self._log).open("rb") as file:
                file.seek(start)
                return self._decoder.decode(file.read())
        except OSError:
            return ""  # it was cut by somebody else

    def _rest(self) -> str:
        # A character whose last bytes are not written yet is kept for the next look.
        return self._decoder.decode(self._file.read())

    def _is_open_file(self, device: int, inode: int) -> bool:
        own = os.fstat(self._file.fileno())
        return (own.st_dev, own.st_ino) == (device, inode)


def follow_log(job: Job, follower: LogFollower) -> Iterator[str]:
    """Yields what is added to a run's log until its process has ended."""
    while True:
        # Looked up first, so that what the process wrote last is read after its end.
        alive = job.process() is not None
        text = follower.new_text()
        if text:
            yield text
        if not alive:
            return
        time.sleep(_LOOK_SECONDS)

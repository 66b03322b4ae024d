"""Terminal output, the run's log, and capture of everything else in the engine's log.

vLLM and the libraries under it write to standard output and error from Python, from C++ and from
processes of their own. During a run both file descriptors lead to `engine.log`. What the user
should see goes through `Console`, which keeps the real standard error, and also into
`experiment.log`, where this package's log records go.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from slm_vllm.errors import reason_of
from slm_vllm.rundir.log_rotation import LOG_BYTES, rotate


class Console:
    """Lines for the user, and one line at the bottom that is redrawn on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = False
        self.is_terminal = stream.isatty()

    def say(self, text: str) -> None:
        """Prints a line, and tells it to the log."""
        self.erase()
        self._write(text + "\n")
        _LOGGER.info("%s", text)

    def redraw(self, *forms: str) -> None:
        """Replaces the bottom line (terminals only) by the first that fits, else the last, cut."""
        room = max(10, _terminal_width(self._stream) - 1)
        text = next((form for form in forms if len(form) <= room), forms[-1][:room])
        self._write("\r\x1b[2K" + text)
        self._drawn = True

    def erase(self) -> None:
        """Removes the bottom line."""
        if self._drawn:
            self._write("\r\x1b[2K")
            self._drawn = False

    def end_line(self) -> None:
        """Keeps the bottom line as it is and goes to the next."""
        if self._drawn:
            self._write("\n")
            self._drawn = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The terminal is gone (a closed window under nohup); the run is not.
            pass


def _terminal_width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 100


class RunLog:
    """Sends log records of this package to a file while its block runs.

    Attributes:
        console: Lines for the user, on standard error.
    """

    def __init__(self) -> None:
        self.console = Console(sys.stderr or io.StringIO())
        self._rotate_at: dict[Path, int] = {}
        self._path: Path | None = None
        self._handler: logging.Handler | None = None
        self._level = logging.NOTSET

    def __enter__(self) -> RunLog:
        self._level = _LOGGER.level
        _LOGGER.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        self.console.erase()
        self._drop_handler()
        _LOGGER.setLevel(self._level)

    def write_to(self, path: Path) -> None:
        """Sends log records to the end of this file from now on."""
        self._drop_handler()
        self._handler = logging.FileHandler(path, encoding="utf-8", errors="replace")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        _LOGGER.addHandler(self._handler)
        self._path = path
        self._rotate_at.setdefault(path, LOG_BYTES)
        self.keep_small()

    def end(self) -> None:
        """Leaves the file as it is; what the user is told goes to the console alone."""
        self._drop_handler()

    def capture(self, path: Path) -> None:
        """Where everything else goes; here that is left to the caller of the run."""

    def keep_small(self) -> None:
        """Rotates the logs that have grown large."""
        for path in self._growing():
            try:
                if path.stat().st_size >= self._rotate_at[path]:
                    rotate(path)
            except OSError as error:
                # The disk may be full; the journal is what the room is needed for.
                self._rotate_at[path] *= 2
                _LOGGER.warning("%s: cannot be rotated (%s)", path, reason_of(error))

    def _growing(self) -> list[Path]:
        return [] if self._path is None else [self._path]

    def _drop_handler(self) -> None:
        if self._handler is not None:
            _LOGGER.removeHandler(self._handler)
            with contextlib.suppress(OSError):  # what it could not write it writes at its close
                self._handler.close()
            self._handler = None


class OutputCapture(RunLog):
    """Sends standard output and standard error of the process to a file of their own.

    Works on file descriptors, so that C++ code and child processes are caught too; the console
    keeps the real standard error.
    """

    def __init__(self) -> None:
        super().__init__()
        self._captured: Path | None = None

    def __enter__(self) -> OutputCapture:
        super().__enter__()
        _flush()
        self._real = (os.dup(1), os.dup(2))
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._stream = os.fdopen(os.dup(2), "w", encoding=encoding, errors="backslashreplace")
        self.console = Console(self._stream)
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        _flush()
        for real, standard in zip(self._real, (1, 2), strict=True):
            os.dup2(real, standard)
            os.close(real)
        self._stream.close()

    def capture(self, path: Path) -> None:
        """Sends standard output and standard error to the end of this file from now on."""
        _flush()
        if path.is_symlink():  # an earlier command's, whose log it was no part of
            path.unlink()
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)
        self._captured = path
        self._rotate_at[path] = LOG_BYTES

    def _growing(self) -> list[Path]:
        return super()._growing() + ([] if self._captured is None else [self._captured])


_LOGGER = logging.getLogger("slm_vllm")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # The disk that the log is on may be full, the reader of the output gone.
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.flush()

"""Parsed rows in an unnamed temporary file: reading them back costs a hundredth of parsing."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

_MOST_BYTES = 4 << 30


class RowCache:
    """Frames on disk, gone with this object or its process.

    Args:
        folder: Where there is room.

    Raises:
        OSError: There is not; also of `add`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as this is
        self._ends = [0]

    def add(self, frame: pl.DataFrame) -> None:
        """Keeps a frame behind those before it."""
        buffer = io.BytesIO()
        frame.write_ipc_stream(buffer, compression="lz4")
        end = self._ends[-1] + self._file.write(buffer.getbuffer())
        if end > _MOST_BYTES:
            raise OSError(f"more than {_MOST_BYTES:,} bytes of rows")
        self._file.flush()
        self._ends.append(end)

    def frames(self) -> Iterator[pl.DataFrame]:
        """What was kept, in order; several may read at once."""
        for start, end in zip(self._ends, self._ends[1:], strict=False):
            yield pl.read_ipc_stream(os.pread(self._file.fileno(), end - start, start))

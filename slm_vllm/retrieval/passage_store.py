"""Passages on disk, memory-mapped: opening costs nothing, reading costs what is read.

Each text column is two files: the UTF-8 bytes of all rows end to end (`<column>.bin`) and the
n + 1 byte offsets of the rows (`<column>.offsets.npy`, int64). Not Arrow's file format, because
polars reads such a file whole: of 300,000 passages it took 0.16 to 0.18 s and 385 MiB, this takes
0.0014 s and 183 MiB.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from slm_vllm.types import Passage

TEXT_COLUMNS = ("passage_id", "document_id", "title", "text")
_ALIASES = "aliases.json"
_START = "start.npy"


class TextColumn:
    """One text column, memory-mapped."""

    def __init__(self, folder: Path, name: str) -> None:
        self._offsets = np.load(folder / f"{name}.offsets.npy", mmap_mode="r")
        path = folder / f"{name}.bin"
        # An empty file cannot be mapped.
        self._data: NDArray[np.uint8] = (
            np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        """The texts of any rows, in the order asked for."""
        first, last = self._offsets[rows].tolist(), self._offsets[rows + 1].tolist()
        view = self._data.data
        return [str(view[a:b], "utf-8") for a, b in zip(first, last, strict=True)]

    def slice(self, start: int, stop: int) -> list[str]:
        """The texts of neighbouring rows; one read for all of them."""
        offsets = self._offsets[start : stop + 1]
        if len(offsets) < 2:
            return []
        base = int(offsets[0])
        block = self._data[base : int(offsets[-1])].tobytes()
        bounds = (offsets - base).tolist()
        return [block[a:b].decode("utf-8") for a, b in itertools.pairwise(bounds)]


class PassageStore:
    """Read access to stored passages by position.

    Args:
        folder: What a `PassageWriter` filled.
        fingerprint: Names the content: corpus and chunking.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self._columns = {name: TextColumn(folder, name) for name in TEXT_COLUMNS}
        self._start = np.load(folder / _START, mmap_mode="r")
        self._aliases: dict[str, str] | None = None

    def __len__(self) -> int:
        return len(self._start)

    @property
    def aliases(self) -> dict[str, str]:
        """Ids of documents dropped as duplicates -> id of the copy that was kept."""
        if self._aliases is None:
            self._aliases = json.loads((self.folder / _ALIASES).read_text("utf-8"))
        return self._aliases

    def take(self, indices: ArrayLike) -> list[Passage]:
        """The passages at these positions, in this order.

        Raises:
            IndexError: A position is outside the store.
        """
        rows = np.asarray(indices, np.int64).ravel()
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"passage positions must be within 0 and {len(self) - 1}")
        columns = [self._columns[name].take(rows) for name in TEXT_COLUMNS]
        return [
            Passage(*values) for values in zip(*columns, self._start[rows].tolist(), strict=True)
        ]

    def texts(self, start: int, stop: int) -> list[str]:
        """What is searched of a range of passages: the title, a newline, the text."""
        titles = self._columns["title"].slice(start, stop)
        bodies = self._columns["text"].slice(start, stop)
        return [f"{t}\n{b}" if t else b for t, b in zip(titles, bodies, strict=True)]

    def iter_texts(self, batch_size: int) -> Iterator[tuple[int, list[str]]]:
        """All searchable texts in batches, each with the position of its first passage."""
        for start in range(0, len(self), batch_size):
            yield start, self.texts(start, min(start + batch_size, len(self)))

    def frame(self, start: int = 0, stop: int | None = None) -> pl.DataFrame:
        """A range of passages as a polars frame."""
        stop = len(self) if stop is None else min(stop, len(self))
        data: dict[str, Sequence[str] | NDArray[np.int64]] = {
            name: self._columns[name].slice(start, stop) for name in TEXT_COLUMNS
        }
        return pl.DataFrame(
            {**data, "start": np.array(self._start[start:stop])},
            schema_overrides=dict.fromkeys(TEXT_COLUMNS, pl.String),
        )

    def reopened(self) -> PassageStore:
        """The same passages mapped once more; what is read through it is given back with it."""
        return PassageStore(self.folder, self.fingerprint)

    def close(self) -> None:
        """Drops the mappings; the files can be deleted afterwards."""
        self._columns.clear()
        self._start = np.zeros(0, np.int64)


class _ColumnWriter:
    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: BinaryIO = (folder / f"{name}.bin").open("wb")
        self._lengths: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]

    def append(self, values: Iterable[str]) -> None:
        encoded = [value.encode("utf-8", "replace") for value in values]
        self._file.write(b"".join(encoded))
        self._lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))

    def finish(self) -> None:
        self._file.close()
        np.save(
            self._folder / f"{self._name}.offsets.npy", np.cumsum(np.concatenate(self._lengths))
        )

    def close(self) -> None:
        self._file.close()


class PassageWriter(AbstractContextManager["PassageWriter"]):
    """Appends frames of passages to a folder. Leave the `with` block to complete the files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns = [_ColumnWriter(folder, name) for name in TEXT_COLUMNS]
        self._starts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self.aliases: dict[str, str] = {}

    def append(self, frame: pl.DataFrame) -> None:
        """Adds passages (`slm_vllm.retrieval.passages.PASSAGE_SCHEMA`)."""
        for column, name in zip(self._columns, TEXT_COLUMNS, strict=True):
            column.append(frame[name])
        self._starts.append(frame["start"].to_numpy())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for column in self._columns:
                column.close()
            return
        for column in self._columns:
            column.finish()
        np.save(self._folder / _START, np.concatenate(self._starts))
        (self._folder / _ALIASES).write_text(json.dumps(self.aliases), "utf-8")

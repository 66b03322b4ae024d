"""Passages on disk, memory-mapped: opening costs nothing, reading costs what is read.

Each text column is two files: the UTF-8 bytes of all rows end to end (`<column>.bin`) and the
n + 1 byte offsets of the rows (`<column>.offsets.npy`). Not Arrow's file format, because
polars reads such a file whole: of 300,000 passages it took 0.16 to 0.18 s and 385 MiB, this takes
0.0014 s and 183 MiB.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from slm_vllm.durable import write_text
from slm_vllm.retrieval.arrays import mapped_array
from slm_vllm.types import Passage

TEXT_COLUMNS = ("passage_id", "document_id", "title", "text")
_ALIASES = "aliases.json"
_START = "start.npy"
_FOUR_BYTES = 1 << 32
_NAMED_AT_ONCE = 100_000

# While passages are being written.
_LENGTHS = ".lengths"
_STARTS = "start.bin"
_WRITTEN = "written.json"
_APPENDED = (
    *(f"{name}.bin" for name in TEXT_COLUMNS),
    *(f"{name}{_LENGTHS}" for name in TEXT_COLUMNS),
    _STARTS,
)


class TextColumn:
    """One text column, memory-mapped."""

    def __init__(self, folder: Path, name: str) -> None:
        self._offsets = mapped_array(folder / f"{name}.offsets.npy")
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
        self._start = mapped_array(folder / _START)
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

    def names(self) -> Iterator[pl.DataFrame]:
        """`name` and `position` of passages, a part at a time, for `positions_by_name`.

        Each goes by its own id (then `own` is true) and by that of its document.
        """
        for start in range(0, len(self), _NAMED_AT_ONCE):
            stop = min(start + _NAMED_AT_ONCE, len(self))
            position = pl.int_range(start, stop, eager=True)
            for column in ("passage_id", "document_id"):
                names = pl.Series(self._columns[column].slice(start, stop), dtype=pl.String)
                own = pl.lit(column == "passage_id").alias("own")
                yield pl.DataFrame({"name": names, "position": position}).with_columns(own)

    def reopened(self) -> PassageStore:
        """The same passages mapped once more; what is read through it is given back with it."""
        return PassageStore(self.folder, self.fingerprint)

    def close(self) -> None:
        """Drops the mappings; the files can be deleted afterwards."""
        self._columns.clear()
        self._start = np.zeros(0, np.int64)


def positions_by_name(names: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """`name` and `position`: the passage of that id, else the first one of that document.

    Args:
        names: What is wanted of `PassageStore.names`.
    """
    first = pl.concat(names).sort(["own", "position"], descending=[True, False])
    return first.unique("name", keep="first", maintain_order=True).drop("own")


class PassageWriter(AbstractContextManager["PassageWriter"]):
    """Appends frames of passages to a folder. Leave the `with` block to complete the files.

    Args:
        folder: May hold what a killed writer left there.
        going_on: Keep that, as far as it was made durable.

    Attributes:
        written: What the last `keep` told, or nothing.
    """

    def __init__(self, folder: Path, *, going_on: bool = False) -> None:
        self._folder = folder
        self.aliases: dict[str, str] = {}
        self.written: dict[str, Any] = {}
        kept: dict[str, int] = {}
        if going_on:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads((folder / _WRITTEN).read_text("utf-8"))
                if all(
                    (folder / name).stat().st_size >= found["sizes"][name] for name in _APPENDED
                ):
                    kept, self.written = found["sizes"], found["facts"]
        if not kept:
            (folder / _WRITTEN).unlink(missing_ok=True)
        self._files = {name: _open_at(folder / name, kept.get(name, 0)) for name in _APPENDED}

    def append(self, frame: pl.DataFrame) -> None:
        """Adds passages (`slm_vllm.retrieval.passages.PASSAGE_SCHEMA`)."""
        for name in TEXT_COLUMNS:
            encoded = [value.encode("utf-8", "replace") for value in frame[name]]
            self._files[f"{name}.bin"].write(b"".join(encoded))
            lengths = np.fromiter(map(len, encoded), np.uint32, len(encoded))
            self._files[f"{name}{_LENGTHS}"].write(lengths.tobytes())
        self._files[_STARTS].write(frame["start"].to_numpy().tobytes())

    def keep(self, facts: Mapping[str, Any]) -> None:
        """Brings what was written so far to disk, for a writer that resumes."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        sizes = {name: file.tell() for name, file in self._files.items()}
        self.written = dict(facts)
        kept = json.dumps({"sizes": sizes, "facts": self.written})
        write_text(self._folder / _WRITTEN, kept, self._folder / f".{_WRITTEN}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if kind is not None:
            if not self.written:  # nothing that could be resumed
                for name in self._files:
                    (self._folder / name).unlink()
            return
        for name in TEXT_COLUMNS:
            lengths = self._folder / f"{name}{_LENGTHS}"
            ends = np.cumsum(np.fromfile(lengths, np.uint32), dtype=np.int64)
            np.save(self._folder / f"{name}.offsets.npy", _small(np.append(0, ends)))
            lengths.unlink()
        starts = np.fromfile(self._folder / _STARTS, np.int64)
        np.save(self._folder / _START, _small(starts))
        (self._folder / _STARTS).unlink()
        (self._folder / _WRITTEN).unlink(missing_ok=True)
        (self._folder / _ALIASES).write_text(json.dumps(self.aliases), "utf-8")


def _small(values: NDArray[np.int64]) -> NDArray[Any]:
    """In four bytes each, where that is enough: 20 bytes a passage less."""
    return values.astype(np.uint32) if values.max(initial=0) < _FOUR_BYTES else values


def _open_at(path: Path, size: int) -> BinaryIO:
    """Opens a file for appending, cut to a size."""
    file = path.open("ab")
    file.truncate(size)
    file.seek(size)
    return file

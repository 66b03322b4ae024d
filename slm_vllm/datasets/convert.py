"""Converts raw files to the JSON files of earlier tools, and to Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from slm_vllm.datasets.base import BaseDataset
from slm_vllm.datasets.nq import NqDataset
from slm_vllm.datasets.reading.columnar import write_parquet
from slm_vllm.datasets.rejects import RejectLog
from slm_vllm.datasets.simple_qa import SimpleQaDataset
from slm_vllm.durable import publish, sync
from slm_vllm.errors import ConfigError, StorageError

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion wrote.

    Attributes:
        kind: "nq" or "simple_qa".
        rows: Rows in the full files.
        train: Rows of the first 80 %, in file order.
        eval: The other rows.
        rejected: Rows left out; they are in `rejected.jsonl`.
        files: Everything written, the full JSON file first.
    """

    kind: str
    rows: int
    train: int
    eval: int
    rejected: int
    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """Gives the figures as plain values."""
        return {**asdict(self), "files": [str(file) for file in self.files]}


def convert(
    kind: str, source: str | Path, output_dir: str | Path, *, strict: bool = False
) -> Conversion:
    """Converts a raw file; the same input gives the same JSON bytes.

    Each file is written to a temporary name and renamed once all are complete.

    Args:
        kind: "nq" or "simple_qa".
        source: The raw file, plain or compressed.
        output_dir: Made where it does not exist.
        strict: Fail at the first row that has to be left out.

    Raises:
        ConfigError: Another kind.
        DataError: See `BaseDataset.scan`; also a rejected row under `strict`.
        StorageError: The folder cannot be written, or the disk is full.
    """
    if kind not in _CONVERTERS:
        raise ConfigError(f"nothing converts {kind!r}; there are: {', '.join(_CONVERTERS)}")
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rejects = RejectLog(folder / "rejected.jsonl", strict=strict)
        with ExitStack() as cleanup:
            cleanup.callback(rejects.close)
            work = _Workspace(folder, cleanup)
            return _CONVERTERS[kind](str(source), work, rejects)
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder}: {error.strerror or error}. Free space, check its owner, "
            "or give another --output-dir."
        ) from error
    except pl.exceptions.PolarsError as error:
        raise StorageError(f"cannot write Parquet to {folder}: {error}") from error


class _Workspace:
    """Files under temporary names, which vanish unless `publish` renames them."""

    def __init__(self, folder: Path, cleanup: ExitStack) -> None:
        self.folder = folder
        self._cleanup = cleanup
        self._results: dict[str, Path] = {}

    def temporary(self, name: str, *, keep: bool = True) -> Path:
        path = self.folder / f".{name}.{os.getpid()}.tmp"
        self._cleanup.callback(path.unlink, missing_ok=True)
        if keep:
            self._results[name] = path
        return path

    def publish(self) -> tuple[Path, ...]:
        for path in self._results.values():
            sync(path)
        for name, path in self._results.items():
            publish(path, self.folder / name)
        return tuple(self.folder / name for name in self._results)


class _ArrayWriter:
    """Writes a JSON array with one element a line."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.count = 0

    def add(self, element: bytes) -> None:
        self._out.write(b",\n" if self.count else b"[\n")
        self._out.write(element)
        self.count += 1

    def end(self) -> None:
        self._out.write(b"\n]" if self.count else b"[]")


def _convert_nq(source: str, work: _Workspace, rejects: RejectLog) -> Conversion:
    full = work.temporary("nq_full_dataset.json")
    parquet = work.temporary("nq_full_dataset.parquet")
    rows = _write_rows(NqDataset(source, on_reject=rejects), full, parquet, _nq_record)
    n_train = _train_rows(rows)
    for name, first, last in (("train", 0, n_train), ("eval", n_train, rows)):
        with work.temporary(f"nq_converted_{name}.json").open("wb") as out:
            _copy_rows(full, out, first, last)
            out.write(b"\n")
    return Conversion("nq", rows, n_train, rows - n_train, rejects.count, work.publish())


def _convert_simple_qa(source: str, work: _Workspace, rejects: RejectLog) -> Conversion:
    both = work.temporary("simple_qa_converted.json")
    parquet = work.temporary("simple_qa_converted.parquet")
    full = work.temporary("simple_qa_rows.json", keep=False)
    dataset = SimpleQaDataset(source, on_reject=rejects)
    rows = _write_rows(dataset, full, parquet, _simple_qa_record)
    n_train = _train_rows(rows)
    splits = (("train", 0, n_train), ("eval", n_train, rows))
    for name, first, last in splits:
        with work.temporary(f"simple_qa_{name}.json").open("wb") as out:
            _copy_rows(full, out, first, last)
            out.write(b"\n")
    with both.open("wb") as out:
        sizes = f'{{\n"train_size": {n_train},\n"eval_size": {rows - n_train}'
        out.write(sizes.encode())
        for name, first, last in splits:
            out.write(f',\n"{name}": '.encode())
            _copy_rows(full, out, first, last)
        out.write(b"\n}\n")
    return Conversion("simple_qa", rows, n_train, rows - n_train, rejects.count, work.publish())


_CONVERTERS: dict[str, Callable[[str, _Workspace, RejectLog], Conversion]] = {
    "nq": _convert_nq,
    "simple_qa": _convert_simple_qa,
}


def _train_rows(rows: int) -> int:
    return rows * 8 // 10


def _write_rows(
    dataset: BaseDataset, full: Path, parquet: Path, record: Callable[[Record], Record]
) -> int:
    """Writes every row to a JSON array and to Parquet in one pass, and counts them."""
    with full.open("wb") as out:
        array = _ArrayWriter(out)

        def written() -> Iterator[pl.DataFrame]:
            for frame in dataset.scan():
                for row in frame.iter_rows(named=True):
                    array.add(json.dumps(record(row), ensure_ascii=False).encode())
                yield frame

        write_parquet(parquet, written())
        array.end()
        out.write(b"\n")
    return array.count


def _copy_rows(full: Path, out: BinaryIO, first: int, last: int) -> None:
    """Copies elements [first, last) of a file that `_ArrayWriter` wrote."""
    array = _ArrayWriter(out)
    with full.open("rb") as rows:
        for line in islice(rows, first + 1, last + 1):
            array.add(line.rstrip(b"\n").removesuffix(b","))
    array.end()


def _nq_record(row: Record) -> Record:
    metadata = json.loads(row["metadata"])
    return {
        "question": row["question"],
        "answer": row["answers"],
        "context": "".join(document["text"] for document in row["documents"]),
        "long_context": row["contexts"],
        "short_context": metadata["short_answers"],
        "id": row["question_id"],
        "url": metadata["url"],
        "title": metadata["title"],
    }


def _simple_qa_record(row: Record) -> Record:
    return {
        "id": row["question_id"],
        "question": row["question"],
        "answer": row["answers"],
        "documents": row["documents"],
        "metadata": json.loads(row["metadata"]),
    }

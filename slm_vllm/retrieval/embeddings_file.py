"""Precomputed passage vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slm_vllm.errors import DataError, first_line
from slm_vllm.retrieval.passage_store import PassageStore, positions_by_name
from slm_vllm.retrieval.vector_index import import_faiss

_ROWS = 8_192
_IDS = ("id", "_id", "document_id", "passage_id", "docid")
_VECTORS = ("embedding", "vector", "embeddings", "emb")
_INDEXES = (".faiss", ".index")
_KNOWN = (
    "Known: .npy in the order of the passages; Parquet or Arrow with a column of ids "
    f"({', '.join(_IDS)}) and one of vectors ({', '.join(_VECTORS)}); an index of FAISS "
    f"({', '.join(_INDEXES)}) in that order or with numbers as ids"
)

Placed = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Positions of passages, and the vector of each, float32 of shape (n, dimension)."""


def placed_embeddings(path: str, passages: PassageStore) -> Placed:
    """Yields the vectors of all passages, some thousand at a time.

    Args:
        path: `.npy` with one row for each passage, in the order of the corpus; or Parquet or Arrow
            with ids (of passages, or of documents that are one passage each), in any order. Rows
            of other ids are left out. An index of FAISS that keeps its vectors is as the former, or
            as the latter where it is an `IndexIDMap`.
        passages: What is searched.

    Raises:
        DataError: The file cannot be read, is of another form, or lacks passages.
    """
    try:
        if path.endswith(".npy"):
            yield from _rows(path, np.load(path, mmap_mode="r"), passages)
        elif path.endswith(_INDEXES):
            yield from _of_index(path, passages)
        else:
            yield from _by_id(path, _parts_of_table(path), passages)
    except (OSError, EOFError, ValueError, RuntimeError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{path}: no embeddings could be read ({first_line(error)}). {_KNOWN}"
        ) from error


def _rows(path: str, vectors: Any, passages: PassageStore) -> Placed:
    """Vectors in the order of the passages; `vectors` has a shape and slices, as an array has."""
    if len(vectors.shape) != 2 or vectors.shape[0] != len(passages):
        raise DataError(
            f"{path} has the shape {vectors.shape}; {len(passages)} passages need as many rows of "
            "numbers. Documents are cut into passages: retriever.passage.size says where"
        )
    for start in range(0, len(passages), _ROWS):
        part = np.asarray(vectors[start : start + _ROWS], np.float32)
        yield np.arange(start, start + len(part)), part


class _Stored:
    """The vectors of an index as if they were an array."""

    def __init__(self, index: Any) -> None:
        self._index, self.shape = index, (index.ntotal, index.d)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        low, high, _ = rows.indices(self.shape[0])
        part: NDArray[np.float32] = self._index.reconstruct_n(low, high - low)
        return part


def _of_index(path: str, passages: PassageStore) -> Placed:
    faiss = import_faiss()
    index = faiss.read_index(path, faiss.IO_FLAG_MMAP)
    if not hasattr(index, "id_map"):
        yield from _rows(path, _Stored(index), passages)
        return
    names = faiss.vector_to_array(index.id_map).astype(str)
    vectors = _Stored(faiss.downcast_index(index.index))
    parts = (
        pl.DataFrame({"name": names[low : low + _ROWS], "vector": vectors[low : low + _ROWS]})
        for low in range(0, len(names), _ROWS)
    )
    yield from _by_id(path, parts, passages)


def _parts_of_table(path: str) -> Iterator[pl.DataFrame]:
    """`name` and `vector`, some thousand rows at a time."""
    read = pl.scan_ipc if Path(path).suffix in (".arrow", ".feather") else pl.scan_parquet
    table = read(path, glob=False)
    columns = table.collect_schema().names()
    name = next((one for one in _IDS if one in columns), None)
    vector = next((one for one in _VECTORS if one in columns), None)
    if name is None or vector is None:
        raise DataError(f"{path} has the columns {', '.join(columns)}. {_KNOWN}")
    wanted = table.select(
        pl.col(name).cast(pl.String).alias("name"), pl.col(vector).alias("vector")
    )
    yield from wanted.collect_batches(chunk_size=_ROWS)


def _by_id(path: str, parts: Iterator[pl.DataFrame], passages: PassageStore) -> Placed:
    known = positions_by_name(passages.names())
    missing = np.ones(len(passages), np.bool_)
    for batch in parts:
        part = batch.join(known, on="name", maintain_order="left")
        if part.is_empty():
            continue
        at, vectors = part["position"].to_numpy(), part["vector"].cast(pl.List(pl.Float32))
        if vectors.list.len().n_unique() != 1:
            raise DataError(f"{path}: its vectors are not all of one length")
        if len(np.unique(at)) != len(at) or not missing[at].all():
            raise DataError(f"{path}: an id stands there twice")
        missing[at] = False
        yield at, vectors.list.explode().to_numpy().reshape(len(at), -1)
    if missing.any():
        first = passages.take([int(missing.argmax())])[0].passage_id
        raise DataError(
            f"{path} has no vector for {missing.sum():,} of {len(passages):,} passages, such as "
            f"{first!r}. Vectors of whole documents go with documents of one passage each: raise "
            "retriever.passage.size"
        )

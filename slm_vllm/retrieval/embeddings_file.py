"""Vectors of the passages that somebody has computed already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slm_vllm.errors import DataError
from slm_vllm.retrieval.passage_store import PassageStore

_ROWS = 8_192
_IDS = ("id", "_id", "document_id", "passage_id", "docid")
_VECTORS = ("embedding", "vector", "embeddings", "emb")
_KNOWN = (
    "Known: .npy in the order of the passages; Parquet or Arrow with a column of ids "
    f"({', '.join(_IDS)}) and one of vectors ({', '.join(_VECTORS)})"
)

Placed = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Positions of passages, and the vector of each, float32 of shape (n, dimension)."""


def placed_embeddings(path: str, passages: PassageStore) -> Placed:
    """Yields the vectors of all passages, some thousand at a time.

    Args:
        path: `.npy` with one row for each passage, in the order of the corpus; or Parquet or Arrow
            with ids (of passages, or of documents that are one passage each), in any order. Rows
            of other ids are left out.
        passages: What is searched.

    Raises:
        DataError: The file cannot be read, is of another form, or lacks passages.
    """
    try:
        yield from _rows(path, passages) if path.endswith(".npy") else _by_id(path, passages)
    except (OSError, EOFError, ValueError, pl.exceptions.PolarsError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: no embeddings could be read ({said}). {_KNOWN}") from error


def _rows(path: str, passages: PassageStore) -> Placed:
    vectors = np.load(path, mmap_mode="r")
    if vectors.ndim != 2 or len(vectors) != len(passages):
        raise DataError(
            f"{path} has the shape {vectors.shape}; {len(passages)} passages need as many rows of "
            "numbers. Documents are cut into passages: retriever.passage.size says where"
        )
    for start in range(0, len(vectors), _ROWS):
        part = np.asarray(vectors[start : start + _ROWS], np.float32)
        yield np.arange(start, start + len(part)), part


def _by_id(path: str, passages: PassageStore) -> Placed:
    read = pl.scan_ipc if Path(path).suffix in (".arrow", ".feather") else pl.scan_parquet
    table = read(path, glob=False)
    columns = table.collect_schema().names()
    name = next((one for one in _IDS if one in columns), None)
    vector = next((one for one in _VECTORS if one in columns), None)
    if name is None or vector is None:
        raise DataError(f"{path} has the columns {', '.join(columns)}. {_KNOWN}")
    known = _names(passages)
    missing = np.ones(len(passages), np.bool_)
    wanted = table.select(pl.col(name).cast(pl.String).alias("name"), pl.col(vector).alias("of"))
    for batch in wanted.collect_batches(chunk_size=_ROWS):
        part = batch.join(known, on="name", maintain_order="left")
        if part.is_empty():
            continue
        at = part["position"].to_numpy()
        length = part["of"].list.len()
        if length.n_unique() != 1:
            raise DataError(f"{path}: its vectors are not all of one length")
        if len(np.unique(at)) != len(at) or not missing[at].all():
            raise DataError(f"{path}: an id stands there twice")
        missing[at] = False
        yield at, np.stack(part["of"].to_list()).astype(np.float32)
    if missing.any():
        first = passages.take([int(missing.argmax())])[0].passage_id
        raise DataError(
            f"{path} has no vector for {missing.sum():,} of {len(passages):,} passages, such as "
            f"{first!r}. Vectors of whole documents go with documents of one passage each: raise "
            "retriever.passage.size"
        )


def _names(passages: PassageStore) -> pl.DataFrame:
    """`name` and `position` of all passages: their ids, and those of documents, for their first."""
    found = []
    for start in range(0, len(passages), _ROWS):
        part = passages.frame(start, start + _ROWS).with_columns(
            position=pl.int_range(pl.len()) + start
        )
        found.append(part.select("position", name="passage_id"))
        whole = part.filter(pl.col("start") == 0)
        found.append(whole.select("position", name="document_id"))
    return pl.concat(found).unique("name", keep="first", maintain_order=True)

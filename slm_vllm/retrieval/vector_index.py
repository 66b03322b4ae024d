"""Nearest neighbours by inner product: exact over mapped vectors, or an index of FAISS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slm_vllm.errors import MissingExtraError
from slm_vllm.retrieval.base import SearchResult

IndexKind = Literal["flat", "fp16", "sq8", "hnsw", "ivfsq8", "ivfpq"]

VECTORS = "vectors.bin"
HALF_VECTORS = "vectors.f16.bin"
FAISS_FILE = "index.faiss"
META = "vectors.json"

FLAT_LIMIT = 1_000_000
"""Up to here `auto` is exact search: at 384 dimensions two CPU cores search 300,000 vectors at a
few hundred questions per second, faster than a small model answers them."""

HNSW_LIMIT = 5_000_000
"""Up to here `auto` is HNSW, the fastest to search and the largest."""

MEMORY_SHARE = 3
"""`auto` takes a kind that fits into one part of so many of the machine's memory."""

_LISTS_KEPT = frozenset({"ivfsq8", "ivfpq"})


def kind_by_size(n_vectors: int) -> IndexKind:
    """What `auto` is by the number of vectors alone, as the fingerprints of indexes have it."""
    if n_vectors <= FLAT_LIMIT:
        return "flat"
    return "hnsw" if n_vectors <= HNSW_LIMIT else "ivfpq"


def kind_that_fits(n_vectors: int, dimension: int, hnsw_m: int, memory: int) -> IndexKind:
    """What `auto` is: the best kind for so many vectors that the machine has the memory for.

    Args:
        n_vectors: How many there are.
        dimension: Their length.
        hnsw_m: Neighbours of a node in an HNSW graph.
        memory: Bytes that this machine has.
    """
    # Bytes of a vector: its numbers, and its neighbours or its number in a list.
    needed: dict[IndexKind, int] = {
        "flat": 4 * dimension,
        "fp16": 2 * dimension,
        "hnsw": 4 * dimension + 8 * hnsw_m + 16,
        "ivfsq8": dimension + 8,
    }
    wanted: tuple[IndexKind, ...] = ("ivfsq8",)
    if n_vectors <= FLAT_LIMIT:
        wanted = ("flat", "fp16", "ivfsq8")
    elif n_vectors <= HNSW_LIMIT:
        wanted = ("hnsw", "ivfsq8")
    fitting = (kind for kind in wanted if n_vectors * needed[kind] * MEMORY_SHARE <= memory)
    return next(fitting, "ivfpq")


def vectors_file(folder: Path, kind: IndexKind) -> tuple[Path, type[np.floating[Any]]]:
    """Where the vectors of a build are, and their type: what keeps fewer bits is made of fewer."""
    if kind in ("flat", "hnsw"):
        return folder / VECTORS, np.float32
    return folder / HALF_VECTORS, np.float16


def map_vectors(folder: Path, kind: IndexKind, n: int, dimension: int) -> NDArray[Any]:
    """The vectors of a folder, memory-mapped, of shape (n, dimension).

    Raises:
        ValueError: The file does not hold that many.
    """
    path, dtype = vectors_file(folder, kind)
    if path.stat().st_size != n * dimension * np.dtype(dtype).itemsize:
        raise ValueError(f"{path.name} does not hold {n} vectors of {dimension} numbers")
    return np.memmap(path, dtype, mode="r", shape=(n, dimension))


class VectorIndex:
    """Search over what `vector_build` made. Thread-safe.

    Args:
        folder: The index folder.
        options: Has `ef_search` and `nprobe`.
    """

    def __init__(self, folder: Path, options: Any) -> None:
        meta = json.loads((folder / META).read_text("utf-8"))
        self.kind: IndexKind = meta["kind"]
        self.n, self.dimension = int(meta["n"]), int(meta["dimension"])
        self.recall: dict[str, Any] | None = meta.get("recall")
        """`at`, `mean` and `n` of what an approximate kind finds of exact search; None if exact."""
        self._options = options
        self._faiss = import_faiss()
        self._vectors: NDArray[np.float32] | None = None
        self._index: Any = None
        if self.kind == "flat":
            self._vectors = map_vectors(folder, self.kind, self.n, self.dimension)
        else:
            # RuntimeError is what FAISS raises for a file it cannot read.
            try:
                self._index = self._read(folder / FAISS_FILE)
            except RuntimeError as error:
                raise ValueError(f"{FAISS_FILE} cannot be read: {error}") from None

    def search(self, queries: NDArray[np.float32], k: int) -> SearchResult:
        """The k nearest of each query; scores are inner products, equal ones by their index."""
        depth = min(k, self.n)
        if self._vectors is not None:
            scores, indices = self._faiss.knn(
                queries, self._vectors, depth, metric=self._faiss.METRIC_INNER_PRODUCT
            )
        else:
            scores, indices = self._index.search(queries, depth)
        indices = indices.astype(np.int64)
        scores = np.where(indices < 0, -np.inf, scores).astype(np.float32)
        order = np.lexsort((indices, -scores), axis=-1)
        best = (np.take_along_axis(found, order, axis=1) for found in (indices, scores))
        return SearchResult(*best).padded(k)

    def _read(self, path: Path) -> Any:
        faiss = self._faiss
        if self.kind in _LISTS_KEPT:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
            index.nprobe = self._options.nprobe
            return index
        # Only newer releases of FAISS map what has no lists.
        index = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP))
        if self.kind == "hnsw":
            index.hnsw.efSearch = self._options.ef_search
        return index


def import_faiss() -> Any:
    """The faiss module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("faiss-cpu", "retrieval", "Dense retrieval") from None
    return faiss

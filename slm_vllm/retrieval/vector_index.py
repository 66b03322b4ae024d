"""Nearest neighbours by inner product: exact over mapped vectors, or an approximate FAISS index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slm_vllm.errors import ConfigError, MissingExtraError

IndexKind = Literal["flat", "fp16", "sq8", "hnsw", "ivfpq"]

VECTORS = "vectors.bin"
FAISS_FILE = "index.faiss"
META = "vectors.json"

FLAT_LIMIT = 1_000_000
"""Up to here `auto` is exact search: at 384 dimensions two CPU cores search 300,000 vectors at a
few hundred questions per second, faster than a small model answers them."""

HNSW_LIMIT = 5_000_000
"""Up to here `auto` is HNSW, beyond it IVF-PQ, whose codes take a twentieth of the memory."""

RECALL_DEPTH = 10
"""Approximate kinds are held against exact search over so many passages when they are built."""

_QUANTIZERS = {"fp16": "QT_fp16", "sq8": "QT_8bit"}
_ASKED = 200
_MOST_TRAINING = 100_000
_MIN_TRAINING = 2_560
_ADD_BATCH = 65_536


def chosen_kind(wanted: str, n_vectors: int) -> IndexKind:
    """The kind of index for `auto`, by size; other words mean themselves."""
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if n_vectors <= FLAT_LIMIT:
        return "flat"
    return "hnsw" if n_vectors <= HNSW_LIMIT else "ivfpq"


def map_vectors(folder: Path, n: int, dimension: int) -> NDArray[np.float32]:
    """The vectors of a folder, memory-mapped, float32 of shape (n, dimension).

    Raises:
        ValueError: The file does not hold that many.
    """
    path = folder / VECTORS
    if path.stat().st_size != n * dimension * 4:
        raise ValueError(f"{VECTORS} does not hold {n} vectors of {dimension} numbers")
    return np.memmap(path, np.float32, mode="r", shape=(n, dimension))


def build_index(folder: Path, kind: IndexKind, n: int, dimension: int, options: Any) -> None:
    """Turns the vectors of a folder into an index of a kind.

    Args:
        folder: Holds the vectors. For the approximate kinds, which keep what they need in a file
            of their own, the vectors are removed.
        kind: The kind of index.
        n: How many vectors there are.
        dimension: Their length.
        options: Has `hnsw_m`, `ef_construction`, `ef_search`, `nlist`, `nprobe` and `pq_m`.

    Raises:
        ConfigError: There are too few vectors to train IVF-PQ.
    """
    meta: dict[str, Any] = {"kind": kind, "n": n, "dimension": dimension}
    if kind == "flat":
        (folder / META).write_text(json.dumps(meta), "utf-8")
        return
    faiss = import_faiss()
    vectors = map_vectors(folder, n, dimension)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, options.hnsw_m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = options.ef_construction
        index.hnsw.efSearch = options.ef_search
    elif kind == "ivfpq":
        index = _trained_ivfpq(faiss, vectors, options)
        index.nprobe = options.nprobe
    else:
        form = getattr(faiss.ScalarQuantizer, _QUANTIZERS[kind])
        index = faiss.IndexScalarQuantizer(dimension, form, faiss.METRIC_INNER_PRODUCT)
        index.train(_sample(vectors, _MOST_TRAINING))
    for low in range(0, n, _ADD_BATCH):
        index.add(np.ascontiguousarray(vectors[low : low + _ADD_BATCH]))
    faiss.write_index(index, str(folder / FAISS_FILE))
    meta["recall"] = _recall(faiss, index, vectors)
    (folder / META).write_text(json.dumps(meta), "utf-8")
    del vectors
    (folder / VECTORS).unlink()


def _trained_ivfpq(faiss: Any, vectors: NDArray[np.float32], options: Any) -> Any:
    n, dimension = vectors.shape
    if n < _MIN_TRAINING:
        raise ConfigError(
            f"retriever.options.index=ivfpq needs at least {_MIN_TRAINING} passages to train on, "
            f"this corpus has {n}. Use index=flat"
        )
    # FAISS wants 39 training vectors for each list, and 4 * sqrt(n) lists as a rule of thumb.
    nlist = options.nlist or max(1, min(int(4 * n**0.5), n // 39))
    pq_m = options.pq_m or next(m for m in (96, 64, 48, 32, 16, 8, 4, 2, 1) if dimension % m == 0)
    if dimension % pq_m:
        raise ConfigError(
            f"retriever.options.pq_m is {pq_m}, which does not divide the dimension {dimension}"
        )
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFPQ(quantizer, dimension, nlist, pq_m, 8, faiss.METRIC_INNER_PRODUCT)
    index.train(_sample(vectors, max(nlist * 64, 20_000)))
    index.own_fields = True
    quantizer.this.disown()
    return index


def _sample(vectors: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Vectors drawn at random, the same in each build, in their order."""
    n = len(vectors)
    rows = np.random.default_rng(0).choice(n, min(n, most), replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)])


def _recall(faiss: Any, index: Any, vectors: NDArray[np.float32]) -> dict[str, Any]:
    """The share of the exact search's best that the index finds, with passages as questions."""
    k = min(RECALL_DEPTH, len(vectors))
    asked = _sample(vectors, _ASKED)
    _, exact = faiss.knn(asked, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    _, found = index.search(asked, k)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    return {"at": k, "mean": round(float(np.mean(shared)) / k, 4), "n": len(asked)}


class VectorIndex:
    """Search over what `build_index` made. Thread-safe.

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
            self._vectors = map_vectors(folder, self.n, self.dimension)
        else:
            # RuntimeError is what FAISS raises for a file it cannot read.
            try:
                self._index = self._read(folder / FAISS_FILE)
            except RuntimeError as error:
                raise ValueError(f"{FAISS_FILE} cannot be read: {error}") from None

    def search(
        self, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest of each query, best first, equal scores in the order of their index.

        Returns:
            Indices and inner products of shape (n_queries, k); -1 and -inf where there is none.
        """
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
        out_indices = np.full((len(queries), k), -1, np.int64)
        out_scores = np.full((len(queries), k), -np.inf, np.float32)
        out_indices[:, :depth] = np.take_along_axis(indices, order, axis=1)
        out_scores[:, :depth] = np.take_along_axis(scores, order, axis=1)
        return out_indices, out_scores

    def _read(self, path: Path) -> Any:
        faiss = self._faiss
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        if self.kind == "hnsw":
            index.hnsw.efSearch = self._options.ef_search
        elif self.kind == "ivfpq":
            index.nprobe = self._options.nprobe
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

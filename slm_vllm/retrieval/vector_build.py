"""Builds a vector index part by part, and resumes an interrupted build."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slm_vllm.durable import replacing, write_text
from slm_vllm.errors import ConfigError
from slm_vllm.retrieval.base import BuildMonitor
from slm_vllm.retrieval.vector_index import (
    FAISS_FILE,
    META,
    VECTORS,
    IndexKind,
    import_faiss,
    map_vectors,
)

RECALL_DEPTH = 10
"""Approximate kinds are held against exact search over so many passages when they are built."""

PARTIAL = "partial.faiss"
"""What is indexed of a build that is not whole."""

SAVE_EVERY = 60.0
"""Seconds between two times that is written; longer where writing takes over a twentieth."""

_QUANTIZERS = {"fp16": "QT_fp16", "sq8": "QT_8bit"}
_ASKED = 200
_MIN_TRAINING = 2_560
_ADD_BATCH = 16_384

_MOST_LISTS = 8_192
_MOST_TRAINING = 320_000
"""FAISS wants 39 vectors for each list. At 384 numbers they take 0.5 GB, however many there are."""


def build_index(
    folder: Path, kind: IndexKind, n: int, dimension: int, options: Any, monitor: BuildMonitor
) -> None:
    """Turns the vectors of a folder into an index of a kind.

    Args:
        folder: Holds the vectors, and what a killed build of the same kind, vectors and options
            left, which is resumed. `keep_built` then takes away what a search does not need.
        kind: The kind of index.
        n: How many vectors there are.
        dimension: Their length.
        options: Has `hnsw_m`, `ef_construction`, `ef_search`, `nlist`, `nprobe` and `pq_m`.
        monitor: Told what is indexed.

    Raises:
        ConfigError: There are too few vectors to train IVF-PQ.
    """
    meta: dict[str, Any] = {"kind": kind, "n": n, "dimension": dimension}
    if kind != "flat":
        faiss = import_faiss()
        vectors = map_vectors(folder, kind, n, dimension)
        index = _filled(faiss, folder / PARTIAL, kind, vectors, options, monitor)
        _save(faiss, index, folder / FAISS_FILE)
        monitor.report("comparing with exact search", 0)
        meta["recall"] = _recall(faiss, index, vectors)
    write_text(folder / META, json.dumps(meta))


def keep_built(folder: Path) -> bool:
    """Takes away what only a build needs, if the index is whole; returns whether it is."""
    try:
        kind = json.loads((folder / META).read_text("utf-8"))["kind"]
    except (OSError, ValueError, KeyError):
        return False
    needed = {META, FAISS_FILE if kind != "flat" else VECTORS}
    for path in folder.iterdir():
        if path.name not in needed:
            path.unlink()
    return all((folder / name).exists() for name in needed)


def _filled(
    faiss: Any,
    partial: Path,
    kind: IndexKind,
    vectors: NDArray[Any],
    options: Any,
    monitor: BuildMonitor,
) -> Any:
    n = len(vectors)
    saved, pause = time.monotonic(), SAVE_EVERY
    if partial.exists():
        index = faiss.read_index(str(partial))
    else:
        monitor.report(f"training the {kind} index", 0)
        index = _trained(faiss, kind, vectors, options)
    if kind == "hnsw":  # which the file does not keep
        index.hnsw.efConstruction = options.ef_construction
        index.hnsw.efSearch = options.ef_search
    elif kind in ("ivfsq8", "ivfpq"):
        index.nprobe = options.nprobe
    phase = f"building the {kind} index"
    while index.ntotal < n:
        monitor.report(phase, index.ntotal, n)
        low = index.ntotal
        index.add(np.ascontiguousarray(vectors[low : low + _ADD_BATCH], np.float32))
        if time.monotonic() - saved > pause and index.ntotal < n:
            begin = time.monotonic()
            _save(faiss, index, partial)
            saved = time.monotonic()
            pause = max(SAVE_EVERY, 20 * (saved - begin))
    monitor.report(phase, n, n)
    return index


def _save(faiss: Any, index: Any, path: Path) -> None:
    with replacing(path, path.with_name(f".{path.name}")) as whole:
        faiss.write_index(index, str(whole))


def _trained(faiss: Any, kind: IndexKind, vectors: NDArray[Any], options: Any) -> Any:
    """An empty index that has seen a sample of the vectors."""
    n, dimension = vectors.shape
    if kind == "hnsw":
        return faiss.IndexHNSWFlat(dimension, options.hnsw_m, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivfpq":
        return _trained_ivfpq(faiss, vectors, options)
    if kind == "ivfsq8":
        nlist = _lists(n, options)
        index = faiss.index_factory(dimension, f"IVF{nlist},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.train(_sample(vectors, nlist * 64))
        return index
    form = getattr(faiss.ScalarQuantizer, _QUANTIZERS[kind])
    index = faiss.IndexScalarQuantizer(dimension, form, faiss.METRIC_INNER_PRODUCT)
    index.train(_sample(vectors, 100_000))
    return index


def _trained_ivfpq(faiss: Any, vectors: NDArray[Any], options: Any) -> Any:
    n, dimension = vectors.shape
    if n < _MIN_TRAINING:
        raise ConfigError(
            f"retriever.options.index=ivfpq needs at least {_MIN_TRAINING} passages to train on, "
            f"this corpus has {n}. Use index=flat"
        )
    nlist = _lists(n, options)
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


def _lists(n: int, options: Any) -> int:
    """4 * sqrt(n) as a rule of thumb of FAISS, and 39 vectors to train each."""
    return int(options.nlist or max(1, min(int(4 * n**0.5), n // 39, _MOST_LISTS)))


def _sample(vectors: NDArray[Any], most: int) -> NDArray[np.float32]:
    """Vectors drawn at random, the same in each build, in their order."""
    n = len(vectors)
    rows = np.random.default_rng(0).choice(n, min(n, most, _MOST_TRAINING), replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)], np.float32)


def _recall(faiss: Any, index: Any, vectors: NDArray[Any]) -> dict[str, Any]:
    """The share of the exact search's best that the index finds, with passages as questions."""
    k = min(RECALL_DEPTH, len(vectors))
    asked = _sample(vectors, _ASKED)
    exact = _nearest(faiss, asked, vectors, k)
    _, found = index.search(asked, k)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    return {"at": k, "mean": round(float(np.mean(shared)) / k, 4), "n": len(asked)}


def _nearest(
    faiss: Any, asked: NDArray[np.float32], vectors: NDArray[Any], k: int
) -> NDArray[np.int64]:
    """The indices of the exact search's best, a part of the vectors at a time."""
    best = np.full((len(asked), k), -np.inf, np.float32)
    indices = np.full((len(asked), k), -1, np.int64)
    for low in range(0, len(vectors), _ADD_BATCH):
        part = np.ascontiguousarray(vectors[low : low + _ADD_BATCH], np.float32)
        depth = min(k, len(part))
        scores, found = faiss.knn(asked, part, depth, metric=faiss.METRIC_INNER_PRODUCT)
        scores, found = np.hstack([best, scores]), np.hstack([indices, found + low])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, order, axis=1)
        indices = np.take_along_axis(found, order, axis=1)
    return indices

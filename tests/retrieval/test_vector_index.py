from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from slm_vllm.retrieval import vector_build
from slm_vllm.retrieval.base import BuildMonitor
from slm_vllm.retrieval.vector_build import PARTIAL, build_index, keep_built
from slm_vllm.retrieval.vector_index import (
    IndexKind,
    VectorIndex,
    kind_by_size,
    kind_that_fits,
    vectors_file,
)
from support.extras import needs

pytestmark = needs("faiss")

N, DIMENSION = 3_000, 16
OPTIONS = SimpleNamespace(
    hnsw_m=8, ef_construction=40, ef_search=64, nlist=20, nprobe=20, pq_m=8, similarity="cosine"
)


def write_vectors(folder: Path, kind: IndexKind) -> np.ndarray:
    """Some clusters of unit vectors, as `DenseRetriever.build` leaves them."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30, DIMENSION))[rng.integers(0, 30, N)]
    vectors += 0.5 * rng.standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folder.mkdir()
    path, dtype = vectors_file(folder, kind)
    vectors.astype(dtype).tofile(path)
    return vectors


@pytest.mark.parametrize("kind", ["fp16", "sq8", "hnsw", "ivfsq8", "ivfpq"])
def test_a_build_that_was_stopped_goes_on(
    tmp_path: Path, kind: IndexKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = write_vectors(tmp_path / "stopped", kind)
    monkeypatch.setattr(vector_build, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(vector_build, "_ADD_BATCH", 500)
    seen: list[int] = []

    def progress(phase: str, done: int, total: int | None) -> None:
        if phase.startswith("building"):
            assert total == N
            seen.append(done)
            if seen == [0, 500, 1_000]:
                raise KeyboardInterrupt

    build = lambda folder: build_index(  # noqa: E731
        folder, kind, N, DIMENSION, OPTIONS, BuildMonitor(progress)
    )
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "stopped")
    assert not keep_built(tmp_path / "stopped") and (tmp_path / "stopped" / PARTIAL).exists()
    (tmp_path / "stopped" / f".{PARTIAL}").write_bytes(b"torn")
    build(tmp_path / "stopped")
    # What was on disk when it stopped: 500 or, where writing took no time at all, 1,000.
    assert seen[3] in (500, 1_000) and seen[-1] == N

    assert keep_built(tmp_path / "stopped")
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {
        "index.faiss",
        "vectors.json",
    }
    asked = np.ascontiguousarray(vectors[::29], np.float32)
    found = VectorIndex(tmp_path / "stopped", OPTIONS).search(asked, 5)
    exact = np.argsort(-(asked @ vectors.T), axis=1)[:, :5]
    pairs = zip(found.indices, exact, strict=True)
    shared = np.mean([len(set(a) & set(b)) for a, b in pairs]) / 5
    assert shared > {"fp16": 0.99, "sq8": 0.9, "hnsw": 0.95, "ivfsq8": 0.9, "ivfpq": 0.4}[kind]
    if kind != "hnsw":  # whose levels are drawn anew
        write_vectors(tmp_path / "whole", kind)
        seen[:] = [-1]
        build(tmp_path / "whole")
        again = VectorIndex(tmp_path / "whole", OPTIONS).search(asked, 5)
        np.testing.assert_array_equal(found.indices, again.indices)
        np.testing.assert_array_equal(found.scores, again.scores)


def test_the_recall_told_is_that_of_exact_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_build, "_ADD_BATCH", 700)
    vectors = write_vectors(tmp_path / "made", "ivfpq").astype(np.float16).astype(np.float32)
    build_index(tmp_path / "made", "ivfpq", N, DIMENSION, OPTIONS, BuildMonitor())
    index = VectorIndex(tmp_path / "made", OPTIONS)
    rows = np.sort(np.random.default_rng(0).choice(N, 200, replace=False))
    exact = np.argsort(-(vectors[rows] @ vectors.T), axis=1, kind="stable")[:, :10]
    found = index.search(vectors[rows], 10).indices
    shared = np.mean([len(set(a) & set(b)) for a, b in zip(found, exact, strict=True)]) / 10
    assert index.recall == {"at": 10, "mean": pytest.approx(shared, abs=0.002), "n": 200}


@pytest.mark.parametrize(
    ("n", "dimension", "gigabytes", "kind"),
    [
        (1, 384, 1, "flat"),
        (1_000_000, 384, 5, "flat"),  # 1.5 GB of vectors
        (1_000_000, 384, 4, "fp16"),
        (1_000_000, 384, 2, "ivfsq8"),
        (1_000_000, 4_096, 24, "ivfsq8"),  # 4 GB; 16 and 8 are over a third
        (1_000_001, 384, 6, "hnsw"),  # 1.8 GB with its graph
        (1_000_001, 384, 5, "ivfsq8"),
        (5_000_000, 384, 24, "ivfsq8"),  # 9 GB with a graph, 2 without
        (5_000_000, 384, 64, "hnsw"),
        (21_000_000, 384, 25, "ivfsq8"),  # 8.2 GB
        (21_000_000, 384, 24, "ivfpq"),
    ],
)
def test_auto_is_what_a_third_of_the_memory_holds(
    n: int, dimension: int, gigabytes: int, kind: str
) -> None:
    assert kind_that_fits(n, dimension, 32, gigabytes * 10**9) == kind


def test_the_kind_by_size_is_that_of_earlier_versions() -> None:
    assert [kind_by_size(n) for n in (1, 10**6, 10**6 + 1, 5 * 10**6, 5 * 10**6 + 1)] == [
        "flat", "flat", "hnsw", "hnsw", "ivfpq",
    ]  # fmt: skip

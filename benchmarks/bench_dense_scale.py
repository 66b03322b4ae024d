"""Vector search from 300,000 passages to millions, kind by kind, beside FAISS alone.

    python benchmarks/bench_dense_scale.py --dataset NQ-open.sample.merged.jsonl.gz --sizes 300000

The vectors are clustered as passages are: the dataset's own, encoded, are the topics; a page is a
topic moved at random, and has 20 passages, each the page moved at random by less. Moves have the
covariance of the real vectors, and a length at which two passages of a page are as near to one
another as two of one page of Natural Questions (cosine 0.80; there the median is 0.79). The real
vectors are in the middle, and the dataset's questions, encoded, are asked. Recall is the share of
the exact search's best that a kind finds, for these questions. Each step in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

KINDS = ("flat", "fp16", "sq8", "hnsw", "ivfsq8", "ivfpq")
PAGE = 20
PAGE_MOVE, PASSAGE_MOVE = 0.9, 0.5
TOP_K = 100


def encode(dataset: str, folder: Path) -> None:
    """Writes the vectors of the dataset's passages and questions, and which are whose."""
    from slm_vllm.config.schema import PassageConfig
    from slm_vllm.datasets.registry import open_dataset
    from slm_vllm.retrieval.encoder import DEFAULT_MODEL, Encoder, find_encoder
    from slm_vllm.retrieval.passages import iter_passages

    opened = open_dataset("nq", dataset)
    passages = pl.concat(iter_passages(opened.corpus(), PassageConfig()))
    rows = pl.concat(frame.select("question", "documents") for frame in opened.scan())
    encoder = Encoder(find_encoder(DEFAULT_MODEL))
    texts = [f"{t}\n{b}" for t, b in passages.select("title", "text").iter_rows()]
    np.save(folder / "real.npy", encoder.encode(texts))
    np.save(folder / "questions.npy", encoder.encode(rows["question"].to_list()))
    passages.select("document_id").write_parquet(folder / "real.parquet")
    rows.select("documents").write_parquet(folder / "gold.parquet")


def write_vectors(path: Path, dtype: type, size: int, folder: Path) -> tuple[int, int]:
    """Writes the vectors; returns their number and length."""
    real = np.load(folder / "real.npy")
    covariance = np.cov((real - real.mean(axis=0)).T) + 1e-9 * np.eye(real.shape[1])
    shape = np.linalg.cholesky(covariance).T.astype(np.float32)
    rng = np.random.default_rng(0)

    def moved(vectors: np.ndarray, by: float) -> np.ndarray:
        vectors = vectors + by * (rng.standard_normal(vectors.shape, np.float32) @ shape)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    with path.open("wb") as file:
        for half in range(2):
            for _ in range(0, size // 2, 1_000 * PAGE):
                pages = moved(real[rng.integers(0, len(real), 1_000)], PAGE_MOVE)
                made = moved(np.repeat(pages, PAGE, axis=0), PASSAGE_MOVE)
                file.write(made.astype(dtype).tobytes())
            if half == 0:
                file.write(real.astype(dtype).tobytes())
    length = real.shape[1]
    return path.stat().st_size // (length * np.dtype(dtype).itemsize), length


def options(**given: int) -> Any:
    from slm_vllm.retrieval.dense import DenseOptions

    return DenseOptions(**given)  # type: ignore[arg-type]


def build(folder: Path, kind: Any, size: int) -> dict[str, Any]:
    """Builds the index of a kind of vectors that are there."""
    from slm_vllm.retrieval.base import BuildMonitor
    from slm_vllm.retrieval.vector_build import build_index, keep_built
    from slm_vllm.retrieval.vector_index import vectors_file

    made = folder / kind
    made.mkdir()
    n, length = write_vectors(*vectors_file(made, kind), size, folder)
    begins: dict[str, float] = {}
    begin = time.perf_counter()

    def progress(phase: str, done: int, total: int | None) -> None:
        begins.setdefault(phase, round(time.perf_counter() - begin, 1))

    build_index(made, kind, n, length, options(), BuildMonitor(progress))
    seconds = time.perf_counter() - begin
    keep_built(made)
    stored = sum(path.stat().st_size for path in made.iterdir())
    return {"n": n, "build_s": seconds, "begins": begins, "bytes_each": stored / n, **memory()}


def ask(folder: Path, kind: str, size: int) -> dict[str, Any]:
    """Opens and searches; recall against the exact search, which `flat` writes."""
    from slm_vllm.retrieval.vector_index import VectorIndex, import_faiss

    import_faiss()
    questions = np.load(folder / "questions.npy")
    begin = time.perf_counter()
    index = VectorIndex(folder / kind, options())
    result: dict[str, Any] = {"open_s": time.perf_counter() - begin, "told": index.recall}
    found, _ = index.search(questions, TOP_K)
    if kind == "flat":
        np.save(folder / "exact.npy", found)
    exact = np.load(folder / "exact.npy")
    for k in (10, TOP_K):
        shared = [len(set(a[:k]) & set(b[:k])) for a, b in zip(found, exact, strict=True)]
        result[f"recall@{k}"] = float(np.mean(shared)) / k
        result[f"questions_per_s_top_{k}"] = rate(lambda k=k: index.search(questions, k), questions)
    return {**result, **hits(folder, found, size), **memory()}


def hits(folder: Path, found: np.ndarray, size: int) -> dict[str, float]:
    """Whether a passage of the question's own page is among the first."""
    names = pl.read_parquet(folder / "real.parquet")["document_id"].to_list()
    gold = pl.read_parquet(folder / "gold.parquet")["documents"].to_list()
    rows = 1_000 * PAGE
    first = -(-(size // 2) // rows) * rows
    seen = np.zeros(found.shape, bool)
    for row, (indices, documents) in enumerate(zip((found - first).tolist(), gold, strict=True)):
        wanted = {document["document_id"] for document in documents}
        seen[row] = [0 <= i < len(names) and names[i] in wanted for i in indices]
    return {f"hit@{k}": float(seen[:, :k].any(axis=1).mean()) for k in (1, 10, TOP_K)}


def alone(folder: Path, kind: str, size: int) -> dict[str, Any]:
    """FAISS by itself: all vectors in memory, added at once."""
    import faiss

    n, length = write_vectors(folder / "all.bin", np.float32, size, folder)
    vectors = np.fromfile(folder / "all.bin", np.float32).reshape(n, length)
    (folder / "all.bin").unlink()
    given = options()
    lists = f"IVF{int(4 * n**0.5)}"
    factory = {"flat": "Flat", "fp16": "SQfp16", "sq8": "SQ8", "hnsw": f"HNSW{given.hnsw_m}"}
    factory |= {"ivfsq8": f"{lists},SQ8", "ivfpq": f"{lists},PQ96"}
    begin = time.perf_counter()
    index = faiss.index_factory(length, factory[kind], faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = given.ef_construction, given.ef_search
    index.train(vectors)
    index.add(vectors)
    seconds = time.perf_counter() - begin
    if kind.startswith("ivf"):
        index.nprobe = given.nprobe
    del vectors
    questions = np.load(folder / "questions.npy")
    rates = {
        f"questions_per_s_top_{k}": rate(lambda k=k: index.search(questions, k), questions)
        for k in (10, TOP_K)
    }
    return {"build_s": seconds, **rates, **memory()}


def rate(search: Any, questions: np.ndarray) -> float:
    """Questions per second, median of three passes."""
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        search()
        taken.append(time.perf_counter() - begin)
    return len(questions) / float(np.median(taken))


def memory() -> dict[str, int]:
    """Peak resident memory of this process in MB, mapped pages included."""
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000}


STEPS = {"build": build, "ask": ask, "alone": alone}


def run(step: str, folder: Path, kind: str, size: int) -> None:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--step", step, str(folder), kind, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{size:,}", kind, step, done.stdout.splitlines()[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", help="Natural Questions, raw.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[300_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["sq8", "hnsw", "ivfsq8"])
    parser.add_argument("--alone", nargs="+", choices=KINDS, default=[], help="FAISS by itself.")
    parser.add_argument("--folder", type=Path, help="Keep vectors of the dataset here.")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        step, folder, kind, size = given.step
        print(json.dumps(STEPS[step](Path(folder), kind, int(size))))
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="bench-dense-"))
    try:
        if not (folder / "gold.parquet").exists():
            encode(given.dataset, folder)
        for size in given.sizes:
            for kind in ("flat", *(kind for kind in given.kinds if kind != "flat")):
                run("build", folder, kind, size)
                run("ask", folder, kind, size)
                shutil.rmtree(folder / kind)
            for kind in given.alone:
                run("alone", folder, kind, size)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()

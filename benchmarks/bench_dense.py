"""Dense retrieval: encoding rate against plain loops, vector search against FAISS alone.

    python benchmarks/bench_dense.py --dataset NQ-open.dev.merged.jsonl.gz --passages 256
    python benchmarks/bench_dense.py --vectors 300000

Encoders take turns over the same passages, several rounds, and the best round of each counts, so
that other work on the machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

DIMENSION = 384
TOP_K = 10


def sample_passages(dataset: str, n: int) -> list[str]:
    """The first passages of a dataset, as the retriever cuts and searches them."""
    from slm_vllm.config.schema import PassageConfig
    from slm_vllm.datasets.registry import open_dataset
    from slm_vllm.retrieval.passages import iter_passages

    texts: list[str] = []
    documents = open_dataset(None, dataset).corpus()
    for frame in iter_passages(documents, PassageConfig()):
        texts += (frame["title"] + "\n" + frame["text"]).to_list()
        if len(texts) >= n:
            break
    return texts[:n]


def bench_encoding(dataset: str, n: int, rounds: int) -> list[dict[str, Any]]:
    from sentence_transformers import SentenceTransformer

    from slm_vllm.retrieval.encoder import DEFAULT_MODEL, Encoder, find_encoder

    texts = sample_passages(dataset, n)
    folder = find_encoder(DEFAULT_MODEL)
    plain = SentenceTransformer(str(folder), device="cpu")
    ours, int8 = Encoder(folder), Encoder(folder, dtype="int8")

    def loop(batch: int) -> np.ndarray:
        parts = [
            plain.encode(texts[i : i + batch], normalize_embeddings=True, show_progress_bar=False)
            for i in range(0, len(texts), batch)
        ]
        return np.concatenate(parts)

    ways: dict[str, Callable[[], np.ndarray]] = {
        "one by one": lambda: loop(1),
        "batches of 32, in file order": lambda: loop(32),
        "slm-vllm, sorted by length": lambda: ours.encode(texts),
        "slm-vllm, int8": lambda: int8.encode(texts),
    }
    exact = ways["slm-vllm, sorted by length"]()
    best = dict.fromkeys(ways, float("inf"))
    likeness: dict[str, float] = {}
    for _ in range(rounds):
        for name, encode in ways.items():
            begin = time.perf_counter()
            vectors = encode()
            best[name] = min(best[name], time.perf_counter() - begin)
            likeness[name] = float((vectors * exact).sum(axis=1).mean())
    return [
        {"way": name, "passages_per_s": len(texts) / best[name], "cosine": likeness[name]}
        for name in ways
    ]


def bench_search(n: int, n_queries: int, rounds: int) -> list[dict[str, Any]]:
    import faiss

    from slm_vllm.retrieval.vector_index import VECTORS, VectorIndex, build_index

    rng = np.random.default_rng(0)
    options = SimpleNamespace(
        ef_search=128, nprobe=32, nlist=None, pq_m=None, hnsw_m=32, ef_construction=80
    )
    with tempfile.TemporaryDirectory(prefix="bench-dense-") as name:
        folder = Path(name)
        with (folder / VECTORS).open("wb") as file:
            for low in range(0, n, 50_000):
                part = rng.standard_normal((min(50_000, n - low), DIMENSION), np.float32)
                part /= np.linalg.norm(part, axis=1, keepdims=True)
                file.write(part.data)
        build_index(folder, "flat", n, DIMENSION, options)
        queries = rng.standard_normal((n_queries, DIMENSION), np.float32)
        begin = time.perf_counter()
        ours = VectorIndex(folder, options)
        opened = time.perf_counter() - begin
        peer = faiss.IndexFlatIP(DIMENSION)
        vectors = np.fromfile(folder / VECTORS, np.float32).reshape(n, DIMENSION)
        peer.add(vectors)
        best = [float("inf")] * 2
        for _ in range(rounds):
            for i, search in enumerate((ours.search, peer.search)):
                begin = time.perf_counter()
                search(queries, TOP_K)
                best[i] = min(best[i], time.perf_counter() - begin)
        same = np.mean(ours.search(queries, TOP_K)[0] == peer.search(queries, TOP_K)[1])
    return [
        {"engine": "slm-vllm flat, mapped", "queries_per_s": n_queries / best[0], "open_s": opened},
        {"engine": "faiss.IndexFlatIP", "queries_per_s": n_queries / best[1], "same": float(same)},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="Measure encoding on its passages.")
    parser.add_argument("--passages", type=int, default=256)
    parser.add_argument("--vectors", type=int, help="Measure search over that many vectors.")
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="Write the tables here.")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.dataset:
        rows += bench_encoding(arguments.dataset, arguments.passages, arguments.rounds)
    if arguments.vectors:
        rows += bench_search(arguments.vectors, arguments.queries, arguments.rounds)
    for row in rows:
        print(" | ".join(f"{v:,.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

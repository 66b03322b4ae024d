"""Dense retrieval: encoding rate against plain loops. The search: bench_dense_scale.py.

    python benchmarks/bench_dense.py --dataset NQ-open.dev.merged.jsonl.gz --passages 256

Encoders take turns over the same passages, several rounds, and the best round of each counts, so
that other work on the machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="Its passages are encoded.")
    parser.add_argument("--passages", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="Write the tables here.")
    arguments = parser.parse_args()
    rows = bench_encoding(arguments.dataset, arguments.passages, arguments.rounds)
    for row in rows:
        print(" | ".join(f"{v:,.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

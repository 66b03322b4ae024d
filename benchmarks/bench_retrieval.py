"""BM25 against bm25s alone and rank-bm25: build, search, memory, agreement.

    python benchmarks/bench_retrieval.py --sizes 2600 50000 300000 --json retrieval.json

Passages are 100 words drawn from a Zipf-Mandelbrot distribution over 500,000 words (exponent 1.07,
offset 2.7, as in English text); a question is 9 words of a random passage, so it has its share of
words that are everywhere. Each engine runs in a process of its own, so that its peak memory is its
own. Questions are tokenised within the time measured; passages are not fetched by any engine.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

WORDS_PER_PASSAGE = 100
WORDS_PER_QUESTION = 9
TOP_K = 10
THREADS = 2


def make_corpus(folder: Path, size: int, n_questions: int) -> None:
    """Writes passages.txt and questions.txt, one text on each line."""
    rng = np.random.default_rng(0)
    ranks = np.arange(1, 500_001)
    cumulative = np.cumsum((ranks + 2.7) ** -1.07)
    cumulative /= cumulative[-1]
    # Short words for the frequent ones, as in real text.
    words = np.array([f"w{np.base_repr(r, 36).lower()}" for r in ranks])
    keep = set(rng.integers(0, size, n_questions).tolist())
    questions = []
    with (folder / "passages.txt").open("w") as file:
        for low in range(0, size, 10_000):
            n = min(10_000, size - low)
            drawn = words[np.searchsorted(cumulative, rng.random((n, WORDS_PER_PASSAGE)))]
            for i, row in enumerate(drawn):
                file.write(" ".join(row) + "\n")
                if low + i in keep:
                    questions.append(" ".join(rng.choice(row, WORDS_PER_QUESTION)))
    (folder / "questions.txt").write_text("\n".join(questions))


def read(path: Path) -> list[str]:
    return path.read_text().splitlines()


def documents(folder: Path) -> Iterator[pl.DataFrame]:
    """Frames of documents, read as they are needed."""
    with (folder / "passages.txt").open() as file:
        lines: list[str] = []
        for number, line in enumerate(file):
            lines.append(line.rstrip("\n"))
            if len(lines) == 10_000:
                yield document_frame(lines, number + 1 - len(lines))
                lines = []
        if lines:
            yield document_frame(lines, number + 1 - len(lines))


def document_frame(lines: list[str], first: int) -> pl.DataFrame:
    ids = [f"d{first + i}" for i in range(len(lines))]
    return pl.DataFrame({"document_id": ids, "title": "", "text": lines})


def rate(search: Any, questions: list[str], repeats: int = 3) -> float:
    """Questions per second, the best of some repeats."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        search(questions)
        best = min(best, time.perf_counter() - begin)
    return len(questions) / best


def run_ours(folder: Path, kernel: str) -> dict[str, Any]:
    from slm_vllm.config.schema import RetrieverConfig
    from slm_vllm.retrieval.index_store import open_index

    options = {"kernel": kernel, "threads": THREADS}
    config = RetrieverConfig(name="bm25", kind="bm25", options=options)
    cache = folder / f"cache-{kernel}"

    def opened() -> Any:
        return open_index(config, lambda: documents(folder), corpus_key="k", cache_dir=cache)

    begin = time.perf_counter()
    opened()
    built = time.perf_counter()
    retriever = opened()
    again = time.perf_counter()
    build_peak = peak()
    questions = read(folder / "questions.txt")
    retriever.search(questions[:1], TOP_K)
    first = time.perf_counter()
    speed = rate(lambda q: retriever.search(q, TOP_K), questions)
    result = retriever.search(questions, TOP_K)
    np.save(folder / "ours.npy", result.indices)
    disk = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
    return {
        "build_s": built - begin,
        "open_s": again - built,
        "first_search_s": first - again,
        "questions_per_s": speed,
        "build_peak_mb": build_peak,
        "peak_mb": peak(),
        "disk_mb": disk / 1e6,
    }


def run_bm25s(folder: Path, backend: str) -> dict[str, Any]:
    import bm25s

    begin = time.perf_counter()
    pattern = r"(?u)\w+"
    tokens = bm25s.tokenize(
        read(folder / "passages.txt"), stopwords=None, token_pattern=pattern, show_progress=False
    )
    peer = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend=backend)
    peer.index(tokens, show_progress=False)
    built = time.perf_counter()
    saved = folder / "bm25s"
    peer.save(str(saved))
    del tokens
    reopened = time.perf_counter()
    peer = bm25s.BM25.load(str(saved), mmap=True)
    peer.backend = backend
    again = time.perf_counter()
    build_peak = peak()
    questions = read(folder / "questions.txt")

    def search(batch: list[str]) -> Any:
        asked = bm25s.tokenize(
            batch, stopwords=None, token_pattern=pattern, show_progress=False, return_ids=False
        )
        return peer.retrieve(asked, k=TOP_K, n_threads=THREADS, show_progress=False)

    search(questions[:1])
    first = time.perf_counter()
    speed = rate(search, questions)
    np.save(folder / "bm25s.npy", np.asarray(search(questions).documents, np.int64))
    return {
        "build_s": built - begin,
        "open_s": again - reopened,
        "first_search_s": first - again,
        "questions_per_s": speed,
        "build_peak_mb": build_peak,
        "peak_mb": peak(),
        "disk_mb": sum(p.stat().st_size for p in saved.rglob("*")) / 1e6,
    }


def run_rank_bm25(folder: Path, n_questions: int) -> dict[str, Any]:
    from rank_bm25 import BM25Okapi

    begin = time.perf_counter()
    peer = BM25Okapi([line.lower().split() for line in read(folder / "passages.txt")])
    built = time.perf_counter()
    build_peak = peak()
    questions = read(folder / "questions.txt")[:n_questions]

    def search(batch: list[str]) -> None:
        for question in batch:
            scores = peer.get_scores(question.lower().split())
            np.argsort(-scores)[:TOP_K]

    speed = rate(search, questions, repeats=1)
    return {
        "build_s": built - begin,
        "questions_per_s": speed,
        "build_peak_mb": build_peak,
        "peak_mb": peak(),
    }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


ENGINES = {
    "bm25 (numba)": lambda folder, size: run_ours(folder, "numba"),
    "bm25 (numpy)": lambda folder, size: run_ours(folder, "numpy"),
    "bm25s (numba)": lambda folder, size: run_bm25s(folder, "numba"),
    "bm25s (numpy)": lambda folder, size: run_bm25s(folder, "numpy"),
    "rank-bm25": lambda folder, size: run_rank_bm25(folder, 200 if size < 10_000 else 10),
}


def agreement(folder: Path) -> float:
    """Share of the top 10 of bm25s that is in ours; ties at the end may be broken otherwise."""
    ours, peer = np.load(folder / "ours.npy"), np.load(folder / "bm25s.npy")
    return float(np.mean([len(set(a) & set(b)) / TOP_K for a, b in zip(ours, peer, strict=True)]))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "cpus": str(THREADS)}
    for name in ("numpy", "polars", "numba", "bm25s", "rank-bm25"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    return found


def measure(size: int, n_questions: int) -> list[dict[str, Any]]:
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="bench-retrieval-"))
    try:
        make_corpus(folder, size, n_questions)
        for engine in ENGINES:
            command = [sys.executable, __file__, "--engine", engine, str(folder), str(size)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{engine} at {size}: {done.stderr[-2000:]}")
            row = {"passages": size, "engine": engine, **json.loads(done.stdout.splitlines()[-1])}
            rows.append(row)
            print_row(row)
        print(f"top {TOP_K} shared with bm25s: {agreement(folder):.4f}\n", flush=True)
        rows[0]["shared_with_bm25s"] = agreement(folder)
    finally:
        shutil.rmtree(folder)
    return rows


COLUMNS = ("build_s", "open_s", "first_search_s", "questions_per_s", "build_peak_mb", "peak_mb")


def print_row(row: dict[str, Any]) -> None:
    values = [shown(row.get(c)) for c in COLUMNS]
    print(f"| {row['passages']:,} | {row['engine']} | {' | '.join(values)} |", flush=True)


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.3f}" if value < 10 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_600, 50_000])
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="Write the table here.")
    parser.add_argument("--engine", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        engine, folder, size = arguments.engine
        print(json.dumps(ENGINES[engine](Path(folder), int(size))))
        return
    print(f"| passages | engine | {' | '.join(COLUMNS)} |")
    print("|" + " --- |" * (len(COLUMNS) + 2))
    rows = [row for size in arguments.sizes for row in measure(size, arguments.questions)]
    if arguments.json:
        result = {"versions": versions(), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

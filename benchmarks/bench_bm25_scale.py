"""BM25 from 300,000 passages to millions: build, memory, disk, open, questions/s, kills.

    python benchmarks/bench_bm25_scale.py --dataset NQ-open.sample.merged.jsonl.gz --sizes 300000

The corpus is 100-word passages of words drawn as often as they stand in the dataset's own pages,
and one word in 250 of a long tail of new ones (log-uniform ranks, so the vocabulary keeps growing);
the pages themselves are in its middle, and the dataset's questions are asked. What is measured runs
in processes of their own. `--kills 10` builds once more, killed (-9) ten times on the way, and
compares every file with that of the build that was not. `--bm25s` adds bm25s over the same texts.
`--check 5` compares the top 100 of so many questions with a full sum over all postings.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

WORDS_PER_PASSAGE = 100
NEW_WORDS = 1 / 250
TAIL = 8_000_000
SLOTS = 1 << 22
FRAME = 10_000
KEY = "synthetic"
TOP_K = 100


def make_corpus(path: Path, dataset: str, size: int) -> None:
    """Writes one passage a line."""
    from slm_vllm.datasets.registry import open_dataset

    counts: Counter[str] = Counter()
    for frame in open_dataset("nq", dataset).corpus():
        for text in frame["text"]:
            counts.update(text.split())
    words = np.array(list(counts), object)
    share = np.array(list(counts.values())) / counts.total()
    slots = np.repeat(np.arange(len(words)), np.maximum(1, np.round(share * SLOTS)).astype(int))
    slots = np.append(slots, np.full(int(len(slots) * NEW_WORDS), -1))
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for low in range(0, size, FRAME):
            shape = (min(FRAME, size - low), WORDS_PER_PASSAGE)
            drawn = slots[rng.integers(0, len(slots), shape)]
            rows = words[drawn]
            ranks = np.exp(rng.random(int((drawn < 0).sum())) * np.log(TAIL)).astype(int)
            rows[drawn < 0] = [f"x{np.base_repr(rank, 36).lower()}" for rank in ranks]
            file.write("\n".join(map(" ".join, rows.tolist())) + "\n")


def documents(path: Path, dataset: str) -> Iterator[pl.DataFrame]:
    """Frames of documents: half of the lines, the dataset's pages, the other half."""
    from slm_vllm.datasets.registry import open_dataset

    half, number, mixed = path.stat().st_size / 2, 0, False
    with path.open(encoding="utf-8") as file:
        while lines := file.readlines(6_000_000):
            ids = [f"d{number + i}" for i in range(len(lines))]
            yield pl.DataFrame({"document_id": ids, "title": "", "text": lines})
            number += len(lines)
            if not mixed and file.buffer.tell() >= half:
                yield from open_dataset("nq", dataset).corpus()
                mixed = True


def opened(path: Path, dataset: str, cache: Path, progress: Any = None, **options: Any) -> Any:
    """The index of a corpus, built where it is not there."""
    from slm_vllm.config.schema import RetrieverConfig
    from slm_vllm.retrieval.index_store import open_index

    config = RetrieverConfig(name="bm25", kind="bm25", options={"threads": 2, **options})
    read = lambda: documents(path, dataset)  # noqa: E731
    return open_index(config, read, corpus_key=KEY, cache_dir=cache, progress=progress)


def build(path: Path, dataset: str, cache: Path) -> dict[str, Any]:
    """Builds; how long each phase ended after the start."""
    ends: dict[str, float] = {}
    begin = time.perf_counter()

    def progress(phase: str, done: int, total: int | None) -> None:
        ends[phase] = round(time.perf_counter() - begin, 1)

    retriever = opened(path, dataset, cache, progress)
    seconds = time.perf_counter() - begin
    return {"passages": len(retriever.passages), "build_s": seconds, "ends": ends, **memory()}


def ask(path: Path, dataset: str, cache: Path, check: int) -> dict[str, Any]:
    """Opens and searches."""
    from slm_vllm.datasets.registry import open_dataset
    from slm_vllm.retrieval import bm25, index_store  # noqa: F401 (imported ahead)

    begin = time.perf_counter()
    retriever = opened(path, dataset, cache, kernel="numba")
    open_s = time.perf_counter() - begin
    frames = [frame.select("question", "documents") for frame in open_dataset("nq", dataset).scan()]
    rows = pl.concat(frames)
    questions = rows["question"].to_list()
    gold = [{d["document_id"] for d in documents} for documents in rows["documents"].to_list()]
    begin = time.perf_counter()
    retriever.search(questions[:1], TOP_K)
    first_s = time.perf_counter() - begin
    found = retriever.search(questions, TOP_K)
    rates = {f"questions_per_s_top_{k}": rate(retriever, questions, k) for k in (10, TOP_K)}
    aliases = retriever.passages.aliases
    hits = np.zeros((len(questions), TOP_K), bool)
    for row, (indices, names) in enumerate(zip(found.indices, gold, strict=True)):
        wanted = {aliases.get(name, name) for name in names}
        passages = retriever.passages.take(indices[indices >= 0])
        hits[row, : len(passages)] = [p.document_id in wanted for p in passages]
    result = {"open_s": open_s, "first_search_s": first_s, **rates}
    result |= {f"hit@{k}": float(hits[:, :k].any(axis=1).mean()) for k in (1, 10, TOP_K)}
    if check:
        asked = questions[:: len(questions) // check][:check]
        full = opened(path, dataset, cache, kernel="numpy").search(asked, TOP_K)
        fast = retriever.search(asked, TOP_K)
        same = np.array_equal(full.indices, fast.indices), np.array_equal(full.scores, fast.scores)
        result |= {"checked": len(asked), "top_100_equal": all(same)}
    return {**result, **memory()}


def rate(retriever: Any, questions: list[str], k: int) -> float:
    """Questions per second, median of three passes."""
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        retriever.search(questions, k)
        taken.append(time.perf_counter() - begin)
    return len(questions) / float(np.median(taken))


def run_bm25s(path: Path, dataset: str) -> dict[str, Any]:
    """bm25s with numba over the same texts."""
    import bm25s

    from slm_vllm.datasets.registry import open_dataset

    pattern = r"(?u)\w+"
    begin = time.perf_counter()
    texts = [text for frame in documents(path, dataset) for text in frame["text"]]
    tokens = bm25s.tokenize(texts, stopwords=None, token_pattern=pattern, show_progress=False)
    peer = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numba")
    peer.index(tokens, show_progress=False)
    build_s = time.perf_counter() - begin
    questions = [q for frame in open_dataset("nq", dataset).scan() for q in frame["question"]]

    def search(k: int) -> None:
        asked = bm25s.tokenize(
            questions, stopwords=None, token_pattern=pattern, show_progress=False, return_ids=False
        )
        peer.retrieve(asked, k=k, n_threads=2, show_progress=False)

    search(10)
    rates = {}
    for k in (10, TOP_K):
        begin = time.perf_counter()
        search(k)
        rates[f"questions_per_s_top_{k}"] = len(questions) / (time.perf_counter() - begin)
    return {"build_s": build_s, **rates, **memory()}


def memory() -> dict[str, int]:
    """Peak resident memory of this process in MB, mapped pages included."""
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000}


def disk(cache: Path) -> dict[str, float]:
    """What lies in the index store, against the text."""
    files = [p for p in cache.rglob("*") if p.is_file()]
    text = sum(p.stat().st_size for p in files if p.name in ("text.bin", "title.bin"))
    total = sum(p.stat().st_size for p in files)
    return {"text_mb": text / 1e6, "disk_mb": total / 1e6, "disk_to_text": total / text}


def killed(folder: Path, arguments: list[str], whole: float, kills: int) -> dict[str, Any]:
    """Builds with kills at random moments; whether the files are those of the whole build."""
    rng = random.Random(0)
    cache, lived = folder / "killed", []
    for _ in range(kills):
        job = subprocess.Popen(command("build", *arguments, str(cache)), stdout=subprocess.DEVNULL)
        begin = time.perf_counter()
        try:
            job.wait(1 + rng.uniform(0.05, 0.2) * whole)  # a second to begin
        except subprocess.TimeoutExpired:
            os.kill(job.pid, signal.SIGKILL)
            job.wait()
        lived.append(round(time.perf_counter() - begin, 1))
    begin = time.perf_counter()
    subprocess.run(command("build", *arguments, str(cache)), stdout=subprocess.DEVNULL, check=True)
    last = time.perf_counter() - begin
    names = [p.relative_to(folder / "cache") for p in (folder / "cache").rglob("*") if p.is_file()]
    differing = [
        str(name) for name in names if not same_file(folder / "cache" / name, cache / name)
    ]
    left = [str(p) for p in (cache / "indexes").glob(".building*")]
    shutil.rmtree(cache)
    return {"killed_after_s": lived, "last_s": last, "differing": differing, "left": left}


def same_file(one: Path, other: Path) -> bool:
    if one.name == "index.json":
        return True  # it says how long the build took
    if one.suffix == ".arrow":  # polars lays strings out as its threads come to them
        return pl.read_ipc(one).equals(pl.read_ipc(other))
    return filecmp.cmp(one, other, shallow=False)


def command(step: str, *arguments: str) -> list[str]:
    return [sys.executable, __file__, "--step", step, *arguments]


def run(step: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(command(step, *arguments), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(step, json.dumps(found), flush=True)
    return found


def measure(size: int, given: argparse.Namespace) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-bm25-", dir=given.folder))
    try:
        begin = time.perf_counter()
        make_corpus(folder / "corpus.txt", given.dataset, size)
        print(f"{size:,} passages made in {time.perf_counter() - begin:.0f} s", flush=True)
        arguments = [str(folder / "corpus.txt"), given.dataset]
        cache = str(folder / "cache")
        built = run("build", *arguments, cache)
        print("disk", json.dumps(disk(folder / "cache")), flush=True)
        run("ask", *arguments, cache, str(given.check))
        if given.bm25s:
            run("bm25s", *arguments)
        if given.kills:
            print("kills", json.dumps(killed(folder, arguments, built["build_s"], given.kills)))
    finally:
        shutil.rmtree(folder)


STEPS = {
    "build": lambda path, dataset, cache: build(Path(path), dataset, Path(cache)),
    "ask": lambda path, dataset, cache, n: ask(Path(path), dataset, Path(cache), int(n)),
    "bm25s": lambda path, dataset: run_bm25s(Path(path), dataset),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", help="Natural Questions, raw: words, pages and questions.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[300_000])
    parser.add_argument("--check", type=int, default=5, help="Questions summed up in full.")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--bm25s", action="store_true", help="Measure bm25s too.")
    parser.add_argument("--folder", type=Path, help="Where to work; a temporary folder if not.")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(STEPS[given.step[0]](*given.step[1:])))
        return
    for size in given.sizes:
        measure(size, given)


if __name__ == "__main__":
    main()

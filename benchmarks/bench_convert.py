"""Conversion and scan of a large raw NQ file: MB/s, rows/s and peak resident memory.

    python benchmarks/bench_convert.py --megabytes 2000
    python benchmarks/bench_convert.py --pages-of NQ-open.sample.merged.jsonl.gz --rows 3610

A raw file of the given size is made from a small vocabulary: pages of about 300 KB with headings,
paragraphs, lists and tables, and some hundred long_answer_candidates each, as real ones have. With
`--pages-of` the pages are joined of the excerpts in a sample, 55 each, which makes them as long as
those of Wikipedia are on average, and the BM25 index over them is built too. Each
step runs in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WORDS = (
    "the of river city in 1914 and war treaty film was a king first which island team album season "
    "from with house party company state north its after university game world series by that"
).split() * 2 + [*",,,,...()-", "'s", "``", "''"]
PAGE_TOKENS = 50_000
STEPS = (
    "scan raw",
    "scan raw without documents",
    "convert",
    "scan json",
    "scan json without documents",
    "scan parquet",
    "scan parquet without documents",
)


def blocks(rng: random.Random) -> Iterator[list[str]]:
    """Yields the paragraphs, lists and tables of one page."""
    while True:
        words = rng.choices(WORDS, k=rng.randrange(20, 200))
        kind = rng.random()
        if kind < 0.7:
            yield ["<P>", *words, "</P>"]
        elif kind < 0.85:
            yield ["<Ul>", "<Li>", *words, "</Li>", "<Li>", *words[:9], "</Li>", "</Ul>"]
        else:
            cells = ["<Td>", *words[:4], "</Td>", '<Td_colspan="2">', *words[4:8], "</Td>"]
            yield ["<Table>", *(["<Tr>", *cells, "</Tr>"] * 5), "</Table>"]


def page(rng: random.Random, number: int) -> dict[str, object]:
    """Makes one raw row."""
    tokens = ["<H1>", "Page", str(number), "</H1>"]
    candidates = []
    for block in blocks(rng):
        start = len(tokens)
        tokens += block
        candidates.append({"start_token": start, "end_token": len(tokens), "top_level": True})
        if len(tokens) > PAGE_TOKENS:
            break
    index = rng.randrange(len(candidates))
    start = candidates[index]["start_token"]
    long_answer = {**candidates[index], "candidate_index": index}
    short = [{"start_token": start + 1, "end_token": start + 3}]
    return {
        "question": f"what is on page {number}",
        "answer": ["river city"],
        "document_text": " ".join(tokens),
        "long_answer_candidates": candidates,
        "annotations": [{"long_answer": long_answer, "short_answers": short}],
        "document_url": f"https://en.wikipedia.org/w/index.php?title=Page_{number}",
        "example_id": 10**18 + number,
    }


def make_raw(path: Path, n_bytes: int) -> int:
    """Writes a raw file and returns its number of rows."""
    # Few templates, so that making the file takes less time than reading it.
    rng = random.Random(42)
    templates = [json.dumps(page(rng, number)) for number in range(16)]
    rows = size = 0
    with path.open("w", encoding="utf-8") as file:
        while size < n_bytes:
            line = templates[rows % len(templates)]
            line = line.replace(f'"example_id": {10**18 + rows % 16}', f'"example_id": {rows}')
            size += file.write(line + "\n")
            rows += 1
    return rows


def make_joined(path: Path, sample: str, rows: int) -> None:
    """Writes a raw file whose pages are joined of those of another."""
    opened = gzip.open if sample.endswith(".gz") else open
    with opened(sample, "rt", encoding="utf-8") as file:
        source = [json.loads(line) for line in file]
    rng = random.Random(42)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = dict(source[number % len(source)], example_id=number)
            more = (other["document_text"] for other in rng.choices(source, k=54))
            row["document_text"] = " ".join([row["document_text"], *more])
            file.write(json.dumps(row) + "\n")


def index(raw: Path) -> int:
    """Builds the BM25 index over the pages of a raw file; returns its passages."""
    from slm_vllm.config.schema import RetrieverConfig
    from slm_vllm.datasets.registry import open_dataset
    from slm_vllm.retrieval.index_store import open_index

    config = RetrieverConfig(name="bm25", kind="bm25")
    with tempfile.TemporaryDirectory(dir=raw.parent) as cache:
        read = open_dataset("nq", raw).corpus
        return len(open_index(config, read, corpus_key="raw", cache_dir=Path(cache)).passages)


def step(name: str, raw: Path) -> dict[str, float]:
    """Runs one step here and measures it."""
    from slm_vllm.datasets.convert import convert
    from slm_vllm.datasets.registry import open_dataset

    begin = time.perf_counter()
    if name == "convert":
        rows = convert("nq", raw, raw.parent / "out").rows
    elif name == "index":
        rows = index(raw)
    else:
        form, _, without = name.removeprefix("scan ").partition(" ")
        source = raw if form == "raw" else raw.parent / "out" / f"nq_full_dataset.{form}"
        frames = open_dataset("nq", source).scan(with_documents=not without)
        rows = sum(frame.height for frame in frames)
    seconds = time.perf_counter() - begin
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "megabytes_per_second": round(raw.stat().st_size / 1e6 / seconds, 1),
        "peak_rss_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--pages-of", help="A raw sample of Natural Questions.")
    parser.add_argument("--rows", type=int, default=3_610, help="Rows, with --pages-of.")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(step(arguments.step, arguments.raw)))
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "NQ-open.dev.merged.jsonl"
        rows = arguments.rows
        if arguments.pages_of:
            make_joined(raw, arguments.pages_of, rows)
        else:
            rows = make_raw(raw, arguments.megabytes * 10**6)
        print(f"{rows:,} rows, {raw.stat().st_size / 1e6:,.0f} MB")
        for name in ("index", *STEPS) if arguments.pages_of else STEPS:
            command = [sys.executable, __file__, "--step", name, "--raw", str(raw)]
            print(f"{name:<31}", subprocess.check_output(command, text=True).strip(), flush=True)


if __name__ == "__main__":
    main()

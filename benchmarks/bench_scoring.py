"""Scoring a million pairs: polars expressions against the same metrics as a Python loop.

    python benchmarks/bench_scoring.py --rows 200000 --rounds 3

The loop computes all five metrics row by row, as evaluation scripts usually do; a share of the rows
is enough for its rate. Both sides must agree on every row.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import string
import time
from collections import Counter
from pathlib import Path

import polars as pl

from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.metrics import METRICS

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split()) or " ".join(bare.split())


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def f1(predicted: list[str], expected: list[str]) -> float:
    overlap = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * overlap / (len(predicted) + len(expected)) if overlap else 0.0


def loop(predictions: list[str], answers: list[list[str]]) -> list[tuple[float, ...]]:
    rows = []
    for prediction, accepted in zip(predictions, answers, strict=True):
        form, spoken = normalized(prediction), words(prediction)
        pairs = []
        found = {}
        for answer in accepted:
            wanted, form_a = words(answer), normalized(answer)
            inside = float(f" {form_a} " in f" {form} ")
            found[form_a] = inside
            pairs.append(
                (
                    len(spoken & wanted) / len(wanted),
                    float(form == form_a),
                    f1(form.split(), form_a.split()),
                    inside,
                )
            )
        best = tuple(max(column) for column in zip(*pairs, strict=True))
        rows.append((*best, sum(found.values()) / len(found)))
    return rows


def make_rows(n: int) -> tuple[list[str], list[list[str]]]:
    draw = random.Random(7)
    vocabulary = [f"word{i}" for i in range(5000)] + ["the", "a", "Paris,", "(1969)"] * 50
    predictions = [" ".join(draw.choices(vocabulary, k=draw.randint(1, 25))) for _ in range(n)]
    answers = [
        [" ".join(draw.choices(vocabulary[:4999], k=draw.randint(1, 4))) for _ in range(2)]
        for _ in range(n)
    ]
    return predictions, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    predictions, answers = make_rows(arguments.rows)
    frame = pl.DataFrame({"prediction": predictions, "answers": answers})
    loop_rows = max(1000, arguments.rows // 10)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        scored = score_answers(frame)
        ours.append((time.perf_counter() - started) / arguments.rows)
        started = time.perf_counter()
        expected = loop(predictions[:loop_rows], answers[:loop_rows])
        theirs.append((time.perf_counter() - started) / loop_rows)
    for got, want in zip(
        scored.select(*METRICS).head(loop_rows).iter_rows(), expected, strict=True
    ):
        assert all(abs(g - w) < 1e-9 for g, w in zip(got, want, strict=True)), (got, want)
    figures = {
        "rows": arguments.rows,
        "answers_per_row": 2,
        "polars_seconds_per_million_rows": round(statistics.median(ours) * 1e6, 2),
        "loop_seconds_per_million_rows": round(statistics.median(theirs) * 1e6, 2),
        "ratio": round(statistics.median(theirs) / statistics.median(ours), 2),
        "rows_that_agree": loop_rows,
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

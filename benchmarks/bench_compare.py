"""`slm-vllm compare` over many runs: seconds and memory of the whole command.

    python benchmarks/bench_compare.py --runs 10 --rows 3610

Makes runs of two models with passages in their predictions, in a temporary folder, and starts the
command in a process of its own for each metric. Twice: the two outputs must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.run_folders import make_run

_MODES = ("no_context", "retriever", "oracle")
_TEXT = "The chemical element hydrogen has the symbol H and stands at atomic number 1. " * 8


def make_rows(count: int, mode: str, draw: np.random.Generator) -> list[dict[str, Any]]:
    ability = np.random.default_rng(0).normal(size=count)
    known = (
        ability + draw.normal(size=count) + {"no_context": 0, "retriever": 0.6, "oracle": 1}[mode]
    )
    recall = np.array([0.0, 1 / 3, 0.5, 2 / 3, 1.0])[np.digitize(known, [0, 0.3, 0.6, 0.9])]
    # F1 of answers and predictions of different lengths: many distinct values.
    lengths = draw.integers(2, 40, count)
    f1 = 2 * recall * 3 / (3 + lengths)
    passages = [
        {
            "passage_id": f"d:{i}",
            "document_id": "d",
            "title": "T",
            "text": _TEXT,
            "score": 1.0,
            "rank": i,
        }
        for i in range(1, 4)
    ]
    return [
        {
            "token_recall": float(recall[i]),
            "contains": float(recall[i] == 1.0),
            "f1": float(f1[i]),
            "contexts": [] if mode == "no_context" else passages,
            "search": {"answer_mrr": 1.0 / draw.integers(1, 8)} if mode == "retriever" else None,
        }
        for i in range(count)
    ]


def measured(words: list[str]) -> tuple[bytes, float, float]:
    """Output, seconds and peak resident memory in MiB of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    return output, time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rows", type=int, default=3610)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"runs": arguments.runs, "rows_each": arguments.rows, "metrics": {}}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.runs):
            mode = _MODES[number % len(_MODES)]
            rows = make_rows(arguments.rows, mode, np.random.default_rng(number))
            make_run(
                Path(folder) / f"run{number:02}", model=f"m{number // 3}", mode=mode, rows=rows
            )
        for metric in ("token_recall", "contains", "f1"):
            words = [
                sys.executable,
                "-m",
                "slm_vllm",
                "compare",
                folder,
                "--metric",
                metric,
                "--json",
            ]
            output, seconds, memory = measured(words)
            again, second_time, _ = measured(words)
            assert output == again, "the output does not repeat"
            figures["metrics"][metric] = {
                "seconds": [round(seconds, 2), round(second_time, 2)],
                "peak_mib": round(memory),
                "pairs": sum(len(dataset["pairs"]) for dataset in json.loads(output)["datasets"]),
            }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

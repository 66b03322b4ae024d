"""One sweep over one engine load against one `slm-vllm eval` for each cell.

    python benchmarks/bench_one_load.py --datasets demo --questions 100 \
        --modes no_context,retriever,oracle --retrievers bm25 --rounds 3

Both sides ask the same questions of the demo model and find the indexes built, which favours the
separate commands. What one load saves is the same at any number of questions, so the ratio says
as much about the rate of the machine's answers as about the load: try --questions 10, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "slm_vllm"]


def timed(words: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(COMMAND + words, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"slm-vllm {' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def separate(arguments: argparse.Namespace, folder: str) -> float:
    cells = []
    for dataset, mode in itertools.product(arguments.datasets, arguments.modes):
        searched = arguments.retrievers if mode == "retriever" else ["bm25"]
        cells += [(dataset, mode, retriever) for retriever in searched]
    return sum(
        timed(
            [
                *("eval", "--model", "demo", "--dataset", dataset, "--mode", mode),
                *("--retriever", retriever, "--samples", str(arguments.questions)),
                *("--name", f"cell{number}", "--output-dir", folder, "--no-clearml"),
            ]
        )
        for number, (dataset, mode, retriever) in enumerate(cells)
    )


def together(arguments: argparse.Namespace, folder: str) -> float:
    return timed(
        [
            *("sweep", "--models", "demo", "--datasets", ",".join(arguments.datasets)),
            *("--modes", ",".join(arguments.modes), "--output-dir", folder, "--no-clearml"),
            *("--retrievers", ",".join(arguments.retrievers)),
            *("--samples", str(arguments.questions)),
        ]
    )


def main() -> None:
    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", type=words, default=["demo"])
    parser.add_argument("--modes", type=words, default=["no_context", "retriever", "oracle"])
    parser.add_argument("--retrievers", type=words, default=["bm25"])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"sweep": [], "separate": []}
    with tempfile.TemporaryDirectory(prefix="bench-one-load-") as warm:
        together(argparse.Namespace(**vars(arguments) | {"questions": 1}), warm)
    for _ in range(arguments.rounds):
        for side, run in (("sweep", together), ("separate", separate)):
            with tempfile.TemporaryDirectory(prefix="bench-one-load-") as folder:
                seconds[side].append(round(run(arguments, folder), 1))
                print(f"{side}: {seconds[side][-1]} s", flush=True)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    figures = {
        "datasets": arguments.datasets,
        "modes": arguments.modes,
        "retrievers": arguments.retrievers,
        "questions": arguments.questions,
        "seconds": seconds,
        "ratio": round(medians["sweep"] / medians["separate"], 3),
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

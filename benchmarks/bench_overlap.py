"""How much of making an index hides behind the engine's start.

    python benchmarks/bench_overlap.py --dataset NQ-open.dev.merged.jsonl.gz \
        --retrievers bm25,dense --rounds 3

From the command line to the first answer, each time as a new process: closed book, with an index
to be made, with one that is there; beside it `slm-vllm index build` alone. What is hidden is the
part of that by which the first of two equal runs is not longer than the second. The second is
longer than closed book by its prompts: a larger KV cache, more to read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_startup import until_answer

from slm_vllm.models.demo import prepare_demo_model

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "slm_vllm"]


def first_answer(dataset: str, cache: Path, retriever: str | None) -> float:
    """Seconds from the command line to the first answer in the journal."""
    mode = ["--mode", "no_context"]
    if retriever is not None:
        mode = ["--mode", "retriever", "--retriever", retriever]
    with tempfile.TemporaryDirectory(prefix="bench-overlap-") as name:
        command = [*COMMAND, "eval", "--model", "demo", "--dataset", dataset, *mode]
        command += ["--samples", "1", "--no-clearml", "--output-dir", name, "--name", "run"]
        command += [f"cache_dir={cache}", "generation.max_new_tokens=8"]
        return until_answer(command, Path(name) / "run" / "predictions.jsonl", Path(name))


def build_alone(dataset: str, cache: Path, retriever: str) -> float:
    """Seconds of the command that only makes the index."""
    command = [*COMMAND, "index", "build", "--dataset", dataset, "--retriever", retriever]
    begun = time.perf_counter()
    done = subprocess.run([*command, f"cache_dir={cache}"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--retrievers", type=lambda text: text.split(","), default=["bm25"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prepare_demo_model(REPOSITORY / ".cache")
    seen: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-overlap-cache-") as name:
        cache = Path(name)
        (cache / "models").symlink_to((REPOSITORY / ".cache" / "models").resolve())
        for _ in range(arguments.rounds):
            steps: list[tuple[str, Any]] = [("closed book", None)]
            for retriever in arguments.retrievers:
                steps += [(f"{retriever}, made", retriever), (f"{retriever}, there", retriever)]
            for label, retriever in steps:
                if label.endswith("made"):
                    shutil.rmtree(cache / "indexes", ignore_errors=True)
                seconds = first_answer(arguments.dataset, cache, retriever)
                seen.setdefault(label, []).append(round(seconds, 1))
            for retriever in arguments.retrievers:
                shutil.rmtree(cache / "indexes", ignore_errors=True)
                seconds = build_alone(arguments.dataset, cache, retriever)
                seen.setdefault(f"{retriever}, alone", []).append(round(seconds, 1))
            print({label: values[-1] for label, values in seen.items()}, flush=True)
    medians = {label: statistics.median(values) for label, values in seen.items()}
    hidden = {
        retriever: round(
            1
            - (medians[f"{retriever}, made"] - medians[f"{retriever}, there"])
            / medians[f"{retriever}, alone"],
            2,
        )
        for retriever in arguments.retrievers
    }
    figures = {"median_seconds": medians, "hidden": hidden, "all_seconds": seen}
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The real command with the demo model in real vLLM, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

from support.places import REPOSITORY


def command(output_dir: Path, *words: str) -> list[str]:
    """`eval` in float32: in shorter types an answer depends on what is asked beside it."""
    return [
        *(sys.executable, "-m", "slm_vllm", "eval", "--model", "demo", "--no-clearml"),
        *("--output-dir", str(output_dir), *words),
        *(f"cache_dir={REPOSITORY / '.cache'}", "model.dtype=float32"),
        "generation.max_new_tokens=16",
    ]


def evaluate(output_dir: Path, *words: str) -> dict[str, Any]:
    """Runs it; gives the results by mode."""
    done = subprocess.run([*command(output_dir, *words), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    return {run["mode"]: run for run in json.loads(done.stdout)["runs"]}


def predictions(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "predictions.parquet")


def assert_same_answers(found: Path, expected: Path) -> None:
    """The same rows in the same order, with the same predictions."""
    one, other = predictions(found), predictions(expected)
    for column in ("question_id", "n_prompt_tokens", "n_passages_used"):
        assert one[column].to_list() == other[column].to_list()
    # Greedy choice in float32: another batch can round one near-tie differently; a lost or
    # mixed-up row shows in more.
    assert (one["prediction"] != other["prediction"]).sum() <= 1


def n_answers(folder: Path) -> int:
    """How many the run has written so far."""
    journal = folder / "predictions.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0

"""The same questions through each engine: equal answers, and how two replicas do against one.

    python benchmarks/bench_engines.py --dataset NQ-open.dev.merged.jsonl.gz --questions 200

One command each: vLLM in the process, a vLLM server on loopback, one Ray replica, one Ray replica
held to one core, and two replicas. With two cores, two replicas have one thread each. Greedy,
float32, the demo model. What differs is what batching rounds differently; all of it is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.models.demo import prepare_demo_model

REPOSITORY = Path(__file__).resolve().parents[1]
CORES = sorted(os.sched_getaffinity(0))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A vLLM server of the demo model; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry"]
    command += ["--model", str(prepare_demo_model(REPOSITORY / ".cache"))]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", "2048", "--max-num-seqs", "64", "--enforce-eager"]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, CORES)),
        "VLLM_NO_USAGE_STATS": "1",
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment | os.environ, start_new_session=True
        )
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit((folder / "server.log").read_text()[-3000:])
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def evaluate(
    arguments: argparse.Namespace, folder: Path, name: str, words: list[str], **environment: str
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Result and predictions of one command."""
    command = [sys.executable, "-m", "slm_vllm", "eval", "--model", "demo", "--json"]
    command += ["--dataset", arguments.dataset, "--mode", arguments.mode, "--no-clearml"]
    command += ["--samples", str(arguments.questions), "--name", name]
    command += ["--output-dir", str(folder), *words, f"cache_dir={REPOSITORY / '.cache'}"]
    command += ["generation.max_new_tokens=32"]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    (run,) = json.loads(done.stdout)["runs"]
    run["command_seconds"] = time.perf_counter() - begun
    (path,) = folder.glob(f"{name}*/predictions.parquet")
    return run, pl.read_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--mode", default="no_context")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-engines-") as name:
        folder = Path(name)
        one = {"VLLM_CPU_OMP_THREADS_BIND": str(CORES[-1])}
        ray = ["--engine", "ray", "--replicas"]
        sides: dict[str, Any] = {
            "vllm": lambda n: evaluate(arguments, folder, n, ["model.dtype=float32"]),
            "ray_1": lambda n: evaluate(arguments, folder, n, [*ray, "1", "model.dtype=float32"]),
            "ray_1_one_core": lambda n: evaluate(
                arguments, folder, n, [*ray, "1", "model.dtype=float32"], **one
            ),
            "ray_2": lambda n: evaluate(arguments, folder, n, [*ray, "2", "model.dtype=float32"]),
        }
        with served(folder) as url:
            words = ["--engine", "openai", "--base-url", url]
            answers = {"openai": evaluate(arguments, folder, "openai", words)}
        answers |= {side: run(side) for side, run in sides.items()}
        truth = answers["vllm"][1].select("question_id", "n_prompt_tokens", "prediction")
        for side, (run, predictions) in answers.items():
            both = truth.join(predictions, on="question_id", how="full", validate="1:1")
            different = both.filter(pl.col("prediction").ne_missing(pl.col("prediction_right")))
            found[side] = {
                "questions_per_second": run["throughput"]["questions_per_second"],
                "command_seconds": round(run["command_seconds"], 1),
                "token_recall": run["token_recall"],
                "errors": run["counts"]["errors"],
                "prompts_differ": both.filter(
                    pl.col("n_prompt_tokens").ne_missing(pl.col("n_prompt_tokens_right"))
                ).height,
                "predictions_differ": different.height,
            }
            for row in different.iter_rows(named=True):
                print(f"{side}: {row['prediction']!r} / {row['prediction_right']!r}", flush=True)
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

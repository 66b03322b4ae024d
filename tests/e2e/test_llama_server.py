"""The real command against a server that is not vLLM: llama.cpp's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.models.demo import _find_gguf
from support import llama_server
from support.child import until
from support.places import server_python, without_server
from support.real_runs import assert_same_answers, command, n_answers
from support.servers import free_port, serving

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.xdist_group("model"),
    without_server("llama.cpp"),
]
ROWS = 24  # of `undisturbed`
KEY = {**os.environ, "OPENAI_API_KEY": llama_server.KEY}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.gguf"
    llama_server.write_model(_find_gguf()[0], path)
    return path


def running(model: Path, port: int) -> AbstractContextManager[Any]:
    """The server; it is killed in the end."""
    words = ["-m", "support.llama_server", str(model), str(port)]
    return serving(words, "^serves", python=server_python("llama.cpp"))


def words(port: int) -> list[str]:
    return [
        *("--mode", "no_context", "--samples", str(ROWS), "--engine", "openai"),
        *("--base-url", f"http://127.0.0.1:{port}", "engine.served_model=smol"),
        "engine.max_in_flight=2",
    ]


def test_killed_in_mid_run_brought_back_stopped_and_resumed_with_a_local_runs_answers(
    model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    port = free_port()
    run = command(tmp_path, *words(port))
    folder = tmp_path / "demo_demo_no_context"
    process = None
    try:
        with running(model, port):
            process = subprocess.Popen(run, stderr=subprocess.DEVNULL, env=KEY)
            until(process, lambda: n_answers(folder) >= 3)
        at_least = n_answers(folder)
        with running(model, port):
            until(process, lambda: n_answers(folder) >= at_least + 3)
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 143
            kept = n_answers(folder)
            assert at_least + 3 <= kept < ROWS
            done = subprocess.run([*run, "--json"], capture_output=True, text=True, env=KEY)
    finally:
        if process is not None:
            process.kill()
            process.wait()
    assert done.returncode == 0, done.stderr
    (results,) = json.loads(done.stdout)["runs"]
    assert results["counts"]["resumed"] == kept and results["counts"]["errors"] == 0
    assert_same_answers(folder, undisturbed / "demo_demo_no_context")
    keys = [json.loads(line)["key"] for line in (folder / "predictions.jsonl").open()]
    assert len(set(keys)) == len(keys) == ROWS
    engine = json.loads((folder / "manifest.json").read_text())["engine"]
    assert engine["sampling_proof"] == {f"http://127.0.0.1:{port}/v1": "proven"}
    log = (folder / "experiment.log").read_text()
    assert re.search(r" answers, [1-9]\d* failed attempts", log)  # of the first command


def test_a_wrong_key_is_named(model: Path, tmp_path: Path) -> None:
    port = free_port()
    wrong = {**os.environ, "OPENAI_API_KEY": "wr-ong"}
    with running(model, port):
        done = subprocess.run(
            command(tmp_path, *words(port)), capture_output=True, text=True, env=wrong
        )
    assert done.returncode == 4
    assert "--api-key-env" in done.stderr and "wr-ong" not in done.stderr

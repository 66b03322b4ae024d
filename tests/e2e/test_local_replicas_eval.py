"""The real command with two real vLLM engines on a core each, one of which is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from support.child import until
from support.real_runs import assert_same_answers, command, n_answers

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("model")]


def test_two_engines_of_which_one_is_killed_answer_as_one(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tempfile.mkdtemp(prefix="t")  # a short path, as sockets are in it
    monkeypatch.setenv("TMPDIR", temporary)
    words = ("--mode", "no_context", "--samples", "24", "hardware.engine_args.max_num_seqs=4")
    folder = tmp_path / "demo_demo_no_context"
    job = subprocess.Popen(
        command(tmp_path, *words, "engine.replicas_per_gpu=2"), stderr=subprocess.DEVNULL
    )
    try:
        until(job, lambda: n_answers(folder) > 0)
        (fork_server,) = filter(_is_fork_server, psutil.Process(job.pid).children())
        engines = fork_server.children()
        engines[0].kill()
        assert job.wait() == 0
    finally:
        job.kill()
        job.wait()
    assert len(engines) == 2
    assert_same_answers(folder, undisturbed / "demo_demo_no_context")
    content = json.loads((folder / "manifest.json").read_text())["engine"]
    assert (content["replicas"], content["choices"]["replicas"]) == (2, "2: as configured")
    assert "was ended by SIGKILL" in (folder / "experiment.log").read_text(errors="replace")
    assert not psutil.wait_procs(engines, timeout=30)[1]
    left = [path for path in Path(temporary).rglob("*") if "torchinductor" not in str(path)]
    shutil.rmtree(temporary)
    assert left == []


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        return "slm_vllm.engines.fork_server" in process.cmdline()
    except psutil.NoSuchProcess:
        return False

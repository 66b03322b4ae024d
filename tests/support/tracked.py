"""What a run tells a tracker, and what a ClearML server then holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_vllm.rundir.files import read_manifest
from slm_vllm.tracking import launch
from slm_vllm.tracking.base import Publication
from slm_vllm.tracking.clearml.sync import sync_run
from slm_vllm.tracking.cursor import read_cursor
from slm_vllm.tracking.launch import open_tracking, start_publisher, wait_for
from slm_vllm.tracking.recorder import Recorder
from support.clearml_loopback import Loopback

UNHURRIED = 3600.0
"""Seconds: a bound where none is the subject. What is waited for is said by the publisher."""

POINTS = [(10, 0.25), (70, 0.5), (150, 0.5)]


@dataclass
class StepProgress:
    done: int = 0
    tokens: int = 0
    running_recall: float | None = None

    @property
    def total_done(self) -> int:
        return self.done


@dataclass(frozen=True)
class Memory:
    rss_bytes: int = 512 << 20
    gpu_bytes: int | None = None


def play(recorder: Any, folder: Path, config: Any) -> None:
    """What a run says, in its order."""
    recorder.started(config, read_manifest(folder), 150)
    for done, recall in POINTS:
        recorder.progress(StepProgress(done, done * 5, recall), Memory)
    recorder.finished()


def record(folder: Path, config: Any) -> None:
    """Writes the spool with a clock that makes every point count."""
    moments = iter(range(0, 1000, 5))
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    play(Recorder(folder, clock=lambda: float(next(moments))), folder, config)


def tracked(folder: Path, config: Any, **options: Any) -> list[str]:
    """Runs with tracking as a session does and returns what the user is shown."""
    said: list[str] = []
    options = {"enabled": True, "say": said.append, **options}
    with open_tracking(config.tracking, **options) as tracking:
        play(tracking.recorder(folder), folder, config)
    return said


def assert_everything_is_there(server: Loopback) -> None:
    task = server.task
    assert (task["name"], task["status"], task["type"]) == ("tracked", "completed", "testing")
    assert {"demo", "retriever", "bm25"} <= set(task["tags"]), task["tags"]
    assert server.repeated() == []
    values = server.scalars()
    running = {k[2]: v for k, v in values.items() if k[0] == "Token recall"}
    assert running == dict(POINTS)
    assert values["Summary", "token_recall", -(2**31)] == pytest.approx(0.5)
    assert set(server.artifacts()) == {
        "results", "predictions", "predictions_json", "memory_usage", "manifest", "config", "log",
    }  # fmt: skip
    assert "second line" in "".join(event["msg"] for event in server.events("log"))
    assert len(server.events("plot")) >= 3
    assert "bm25" in json.dumps(task["hyperparams"])


def publish(folder: Path) -> subprocess.Popen[str]:
    """Starts a publisher of a run folder, for the server that the environment names."""
    process = start_publisher(Publication("clearml", os.environ, UNHURRIED), folder / "log.txt")
    assert process.stdin is not None
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()
    return process


def sync(folder: Path, say: Callable[[str], None] = lambda line: None) -> bool:
    """`clearml sync` that takes the time it needs."""
    return sync_run(folder, UNHURRIED, say)


def until_noted(folder: Path) -> str:
    """Waits until the folder's publisher leaves word of a problem."""
    pause = threading.Event()
    while True:
        cursor = read_cursor(folder / "tracking" / "clearml.json")
        if cursor is not None and cursor.problem:
            return cursor.problem
        pause.wait(0.05)


def end_when_noted(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets bounds run out when the publisher has left word, whatever time that takes it."""

    def wait(process: subprocess.Popen[str], bound: float) -> bool:
        until_noted(folder)
        return wait_for(process, 0.0)

    monkeypatch.setattr(launch, "wait_for", wait)


def kill_publisher_at(
    server: Loopback, folder: Path, number: int, *, may_end: bool = False
) -> None:
    """Kills it when a request is done and the answer not sent.

    Args:
        server: Who is asked.
        folder: The run.
        number: Of the request.
        may_end: It may have less to say than that.
    """
    process = publish(folder)
    answered = 0

    def kill(endpoint: str) -> None:
        nonlocal answered
        answered += 1
        if answered == number:
            process.send_signal(signal.SIGKILL)
            process.wait()

    server.after = kill
    delivered = wait_for(process, UNHURRIED)
    server.after = lambda endpoint: None
    assert process.returncode == -signal.SIGKILL or (may_end and delivered)

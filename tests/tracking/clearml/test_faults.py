"""Servers that die and come back, publishers that are killed, runs that are stopped."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.durable import sha256_of
from slm_vllm.tracking.launch import open_tracking, wait_for
from support.clearml_loopback import Loopback, Refusal
from support.qa_files import write_rows
from support.tracked import (
    POINTS,
    UNHURRIED,
    Memory,
    StepProgress,
    assert_everything_is_there,
    kill_publisher_at,
    publish,
    record,
    sync,
    until_noted,
)

pytestmark = pytest.mark.slow

MANIFEST = {"command": ["slm-vllm", "eval"], "packages": {}, "git": None}
QUESTIONS = 10


def die_at(server: Loopback, number: int, *, after: bool) -> threading.Event:
    """Lets the server die at a request, before or after its work; the event says it is dead."""
    dead, answered = threading.Event(), 0

    def die(endpoint: str) -> None:
        nonlocal answered
        answered += 1
        if answered == number:
            server.stop()
            dead.set()

    if after:
        server.after = die
    else:
        server.before = die
    return dead


@pytest.mark.parametrize("number", random.Random(6).sample(range(2, 12), 2))
def test_a_server_that_dies_and_comes_back_gets_everything_once(
    configured: Loopback, run_folder: Path, config: Callable[..., Any], number: int
) -> None:
    """The request is done and its answer lost; the next attempts are refused."""
    record(run_folder, config())
    dead = die_at(configured, number, after=True)
    process = publish(run_folder)
    waiter = threading.Thread(target=wait_for, args=(process, UNHURRIED))
    waiter.start()
    dead.wait()
    assert configured.url in until_noted(run_folder)
    configured.start()
    waiter.join()
    assert process.returncode == 0
    assert_everything_is_there(configured)


def test_a_run_outlives_its_server(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    """Dead from the middle of the run beyond its end: the rest arrives with `clearml sync`."""
    settings = config("tracking.close_timeout=4")
    moments = iter(range(0, 1000, 5))
    said: list[str] = []
    dead = die_at(configured, 7, after=False)
    with open_tracking(settings.tracking, enabled=True, say=said.append) as tracking:
        recorder: Any = tracking.recorder(run_folder)
        recorder._clock = lambda: float(next(moments))
        recorder.started(settings, MANIFEST, 150)
        dead.wait()
        assert configured.url in until_noted(run_folder)
        for done, recall in POINTS:
            recorder.progress(StepProgress(done, done * 5, recall), Memory)
        recorder.finished()
    assert "slm-vllm clearml sync" in said[-1] and configured.url in said[-1]
    configured.start()
    (run_folder / "config.yaml").write_text(json.dumps(config().model_dump(mode="json")))
    assert sync(run_folder, said.append)
    task = configured.task
    assert task["status"] == "completed" and "retriever" in task["tags"]
    assert configured.repeated() == []
    running = {k[2]: v for k, v in configured.scalars().items() if k[0] == "Token recall"}
    assert running == dict(POINTS)


def refuse_from(server: Loopback, number: int, refusals: Sequence[Refusal]) -> threading.Event:
    """Lets the server answer so many requests and refuse the next ones; the event: the last is."""
    refused, answered = threading.Event(), 0
    left = list(refusals)

    def refuse(endpoint: str) -> None:
        nonlocal answered
        answered += 1
        if answered <= number or refused.is_set():
            return
        refusal = left.pop(0)
        if not left:
            refused.set()
        raise refusal

    server.before = refuse
    return refused


@pytest.mark.parametrize("number", [4, 7])
def test_a_server_that_has_too_much_to_do_is_asked_again(
    configured: Loopback, run_folder: Path, config: Callable[..., Any], number: int
) -> None:
    record(run_folder, config())
    busy = [Refusal(429, "Too Many Requests"), Refusal(503, "away"), Refusal(500, "no shards")]
    refused = refuse_from(configured, number, busy)
    assert sync(run_folder)
    assert refused.is_set()
    told = (run_folder / "tracking" / "publisher.log").read_text()
    assert "status 429" in told and "status 503" in told and "no shards" in told
    assert_everything_is_there(configured)


def test_a_server_that_stalls_gets_everything_once(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    """It accepts requests and answers nothing, then does what it was asked all this time."""
    record(run_folder, config())

    def stall(endpoint: str) -> None:
        if endpoint == "events.add_batch":
            configured.before = lambda endpoint: None
            configured.stall()
            configured.wait_while_stalled()

    configured.before = stall
    process = publish(run_folder)
    assert "does not answer" in until_noted(run_folder)
    configured.go_on()
    assert wait_for(process, UNHURRIED)
    assert_everything_is_there(configured)


def test_credentials_revoked_in_mid_run_do_not_hold_it_up(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    """The run ends at once and says what to do; with new ones `clearml sync` sends the rest."""
    record(run_folder, config())
    configured.before = revoke_at(configured, 8)
    said: list[str] = []
    assert not sync(run_folder, said.append)  # it does not use up its hour
    assert "does not accept the ClearML credentials" in said[-1] and "clearml sync" in said[-1]
    assert "loopback-secret" not in (run_folder / "tracking" / "publisher.log").read_text()
    configured.before = lambda endpoint: None
    configured.reject_login = False
    assert sync(run_folder, said.append)
    assert_everything_is_there(configured)


def revoke_at(server: Loopback, number: int) -> Callable[[str], None]:
    """From this request on, neither the token nor the credentials are good."""
    answered = 0

    def revoke(endpoint: str) -> None:
        nonlocal answered
        answered += 1
        if answered >= number:
            server.reject_login = True
            raise Refusal(401, "Unauthorized (token revoked)", 20)

    return revoke


@pytest.mark.parametrize("seed", [1, 2])
def test_publishers_killed_at_random_requests_tell_nothing_twice(
    configured: Loopback, run_folder: Path, config: Callable[..., Any], seed: int
) -> None:
    """Three in a row, each killed when its request was done and the answer not sent."""
    record(run_folder, config())
    draw = random.Random(seed)
    for _ in range(3):
        kill_publisher_at(configured, run_folder, draw.randint(2, 16), may_end=True)
    assert sync(run_folder)
    assert_everything_is_there(configured)


def test_sigterm_gives_143_and_the_resumed_run_goes_on_in_the_same_task(
    configured: Loopback, tmp_path: Path, tiny_model: Path
) -> None:
    rows = [
        {"question_id": f"q{n}", "question": "question", "answer": ["answer"], "contexts": ["c"]}
        for n in range(QUESTIONS)
    ]
    words = [
        "model=custom", "model.name=tiny", f"model.path={tiny_model}", "dataset=custom",
        "dataset.name=qa", f"dataset.path={write_rows(tmp_path / 'qa.jsonl', rows)}",
        f"experiment.output_dir={tmp_path / 'outputs'}", "experiment.name=stopped",
        f"cache_dir={tmp_path / 'cache'}", "hardware=cpu", f"tracking.close_timeout={UNHURRIED}",
    ]  # fmt: skip
    stopped = run_process(words, TERM_AT="3")
    assert stopped.returncode == 143, stopped.stderr
    folder = tmp_path / "outputs" / "stopped"
    assert json.loads((folder / "state.json").read_text())["phase"] == "interrupted"
    assert (configured.task["name"], configured.task["status"]) == ("stopped", "stopped")
    kept = len((folder / "predictions.jsonl").read_text().splitlines())
    assert 4 <= kept < QUESTIONS
    resumed = run_process(words)
    assert resumed.returncode == 0, resumed.stderr
    assert f"asked {QUESTIONS - kept}\n" in resumed.stdout
    assert configured.task["status"] == "completed"  # `task` fails where there are two
    assert configured.repeated() == []
    artifacts = configured.artifacts()
    assert {"results", "predictions", "predictions_json", "log"} <= set(artifacts)
    # To its last line.
    assert artifacts["log"]["hash"] == sha256_of(folder / "experiment.log")
    assert "finished in" in (folder / "experiment.log").read_text().splitlines()[-1]
    assert configured.scalars()["Summary", "count_total", -(2**31)] == QUESTIONS
    memory = json.loads((folder / "memory_usage.json").read_text())
    assert memory["publisher"]["peak_rss"] > 10


def run_process(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "support.tracked_run", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )

"""Runs told to ClearML: the genuine SDK, a loopback server, a publisher that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm_vllm.durable import sha256_of
from slm_vllm.rundir.names import SPOOL
from slm_vllm.tracking.launch import open_tracking
from support.clearml_loopback import Loopback
from support.run_folders import write_judgement
from support.tracked import (
    assert_everything_is_there,
    end_when_noted,
    kill_publisher_at,
    record,
    sync,
    tracked,
)

pytestmark = pytest.mark.slow


def test_a_run_is_published_whole(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    record(run_folder, config())
    said: list[str] = []
    assert sync(run_folder, said.append)
    assert configured.url in said[0]
    assert_everything_is_there(configured)
    # 150 questions and 100 samples in some dozens of calls.
    assert len([c for c in configured.calls if c != "files"]) < 60
    calls = len(configured.calls)
    assert sync(run_folder, said.append)
    assert_everything_is_there(configured)
    assert len(configured.calls) - calls < 10


def test_a_report_that_was_written_later_is_published_by_sync(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    tracked(run_folder, config())
    (run_folder / "config.yaml").write_text(yaml.safe_dump(config().model_dump(mode="json")))
    assert "report" not in configured.artifacts()
    for page in ("<p>first</p>", "<p>second</p>"):
        (run_folder / "report.html").write_text(page)
        assert sync(run_folder)
        assert configured.artifacts()["report"]["hash"] == sha256_of(run_folder / "report.html")
    assert configured.task["status"] == "completed" and configured.repeated() == []


def test_a_judgement_is_published_by_sync(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    tracked(run_folder, config())
    (run_folder / "config.yaml").write_text(yaml.safe_dump(config().model_dump(mode="json")))
    write_judgement(run_folder, ["correct"] * 100 + ["incorrect"] * 50)
    assert sync(run_folder) and sync(run_folder)
    events = configured.events("training_stats_scalar")
    single = {e["variant"]: e["value"] for e in events if e.get("iter") == -(2**31)}
    assert single["judge_correct"] == pytest.approx(2 / 3, abs=1e-6)
    assert single["token_recall"] == pytest.approx(0.5)
    stored = configured.artifacts()
    assert stored["judgement"]["hash"] == sha256_of(run_folder / "judgement.json")
    assert "grades" in stored
    assert configured.task["status"] == "completed" and configured.repeated() == []


def test_a_session_publishes_while_it_goes_on(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    said = tracked(run_folder, config())
    assert len(said) == 1 and said[0].startswith(f"ClearML: {configured.url}/web/")
    assert configured.task["status"] == "completed"
    assert "results" in configured.artifacts()


@pytest.mark.parametrize("call", [1, 6, 8, 14])
def test_a_killed_publisher_tells_nothing_twice(
    configured: Loopback, run_folder: Path, config: Callable[..., Any], call: int
) -> None:
    record(run_folder, config())
    kill_publisher_at(configured, run_folder, call)
    assert sync(run_folder)
    assert_everything_is_there(configured)


def test_a_server_that_never_answers_costs_no_more_than_the_bound(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    configured.stall()
    said = tracked(run_folder, config("tracking.close_timeout=3"))
    assert configured.stalled  # the run has ended, and waited for no answer
    assert "slm-vllm clearml sync" in said[-1]
    configured.go_on()
    (run_folder / "config.yaml").write_text(yaml.safe_dump(config().model_dump(mode="json")))
    assert sync(run_folder, said.append)
    assert configured.repeated() == []
    assert configured.task["status"] == "completed"


def test_a_server_that_is_away_or_refuses_is_named(
    configured: Loopback,
    run_folder: Path,
    config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(run_folder, config())
    said: list[str] = []
    configured.stop()
    with monkeypatch.context() as patch:
        end_when_noted(patch, run_folder)
        assert not sync(run_folder, said.append)
    configured.start()
    configured.reject_login = True
    assert not sync(run_folder, said.append)
    assert all(configured.url in line and "clearml sync" in line for line in said)
    assert "loopback-secret" not in "".join(said)
    configured.reject_login = False
    assert sync(run_folder, said.append)
    assert_everything_is_there(configured)


@pytest.mark.usefixtures("unconfigured")
def test_without_a_server_the_session_is_kept_offline(
    run_folder: Path, config: Callable[..., Any]
) -> None:
    said = tracked(run_folder, config())
    assert "not configured" in said[0]
    with zipfile.ZipFile(run_folder / "tracking" / "clearml_session.zip") as session:
        task = json.loads(session.read("task.json"))
        events = [
            event
            for line in session.read("metrics.jsonl").decode().splitlines()
            for event in json.loads(line)
        ]
        names = session.namelist()
    assert {"demo", "retriever"} <= set(task["tags"])
    assert "short_answer" in json.dumps(task["hyperparams"])
    assert "experiment_mode" in json.dumps(task["configuration"])
    assert {a["key"] for a in task["execution"]["artifacts"]} >= {"results", "predictions"}
    single = {e["variant"]: e["value"] for e in events if e.get("iter") == -(2**31)}
    assert single["token_recall"] == pytest.approx(0.5)
    assert any(e.get("metric") == "Token recall" for e in events)
    assert any("results.json" in name for name in names)


def test_tracking_can_be_turned_off(
    configured: Loopback, run_folder: Path, config: Callable[..., Any]
) -> None:
    assert tracked(run_folder, config(), enabled=False) == []
    assert tracked(run_folder, config("tracking.tracker=none")) == []
    assert not (run_folder / SPOOL).exists() and not configured.calls


def test_the_run_never_imports_clearml(run_folder: Path) -> None:
    code = (
        "import sys, slm_vllm.runs.session, slm_vllm.tracking.launch as l\n"
        "from slm_vllm.config.schema import TrackingConfig\n"
        "with l.open_tracking(TrackingConfig(), enabled=True, say=print) as t: pass\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'clearml'], 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=run_folder)


@pytest.mark.usefixtures("unconfigured")
def test_an_offline_session_can_be_imported(
    server: Loopback,
    run_folder: Path,
    config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = config()
    with open_tracking(settings.tracking, enabled=True, say=lambda _: None) as tracking:
        tracking.recorder(run_folder)
        record(run_folder, settings)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    session = run_folder / "tracking" / "clearml_session.zip"
    code = f"from clearml import Task; Task.import_offline_session({str(session)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert_everything_is_there(server)


def test_the_publisher_leaves_the_processors_to_the_run() -> None:
    code = "from slm_vllm.tracking import publisher as p; p.give_way(); print(p.os.nice(0))"
    # In a session of its own: what it does to its session, it would do to that of the tests.
    done = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, capture_output=True, text=True
    )
    assert done.stdout == "19\n", done.stderr

"""Runs seen from another process: real child processes that write `state.json`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from slm_vllm.cli.runs import command
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, DataError, StorageError
from slm_vllm.jobs.job import Job, find_jobs, list_jobs, read_job, stop_job, stop_jobs
from slm_vllm.jobs.log_tail import LogFollower, last_lines
from slm_vllm.rundir.lookup import find_run
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from support.fake_engine import FakeEngine
from support.run_folders import make_run

# Writes its state, says so, then does what it is told by lines on its standard input.
_CHILD = """
import json, os, signal, sys
from pathlib import Path
import psutil
from slm_vllm.rundir.log_rotation import rotate

folder, deaf = Path(sys.argv[1]), sys.argv[2] == "deaf"

def write(phase):
    state = {"name": folder.name, "pid": os.getpid(), "phase": phase, "done": 3, "total": 10,
             "pid_started": psutil.Process().create_time(),
             "heartbeat": "2026-01-01T00:00:00+00:00"}
    (folder / "state.json").write_text(json.dumps(state))

def leave(signum, frame):
    write("interrupted")
    os._exit(143)

signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else leave)
write("generating")
print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "log":
        with (folder / "experiment.log").open("a") as log:
            log.write(words[1] + "\\n")
    elif words[0] == "rotate":
        rotate(folder / "experiment.log")
    elif words[0] == "finish":
        write("finished")
        break
    print("done", flush=True)
"""

Child = subprocess.Popen[str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a child process for the run folder of a name; all are ended by their pid."""
    children: list[Child] = []

    def start_child(name: str = "night", manner: str = "polite") -> Child:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.hash").write_text("0\n")
        (folder / "experiment.log").write_text("first\nsecond\nthird\n")
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(folder), manner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        return child

    yield start_child
    for child in children:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()


def tell(child: Child, words: str) -> None:
    """Has the child do something and waits until it is done."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(words + "\n")
    child.stdin.flush()
    assert child.stdout.readline() == "done\n"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(command, list(words), catch_exceptions=False)


def edit_state(folder: Path, **changes: Any) -> None:
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | changes))


def find_job(run: str, output_dir: Path) -> Job:
    return read_job(find_run(run, output_dir))


def test_a_running_run_is_listed_with_what_its_state_says(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start()
    (tmp_path / "not_a_run").mkdir()
    (tmp_path / "a_file").write_text("")
    (job,) = list_jobs(tmp_path)
    assert (job.name, job.phase, job.pid, job.alive) == ("night", "generating", child.pid, True)
    assert (job.done, job.total) == (3, 10)
    assert job.heartbeat_age is not None and job.heartbeat_age > 3600
    shown = invoke("list", "--output-dir", str(tmp_path)).output
    assert "night" in shown and "generating" in shown and "3/10" in shown and " d " in shown
    listed = json.loads(invoke("list", "--output-dir", str(tmp_path), "--json").output)
    assert listed["runs"][0]["pid"] == child.pid


def test_stop_ends_the_process_and_says_how_to_go_on(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start()
    words = ["/x/slm_vllm/__main__.py", "eval", "--overwrite", "--name", "two words"]
    (tmp_path / "night" / "manifest.json").write_text(json.dumps({"command": words}))
    result = invoke("stop", "night", "--output-dir", str(tmp_path))
    # psutil reaps a child of this process, so its exit code is not asked for here.
    assert child.poll() is not None
    assert "has ended" in result.output and "interrupted" in result.output
    assert "slm-vllm eval --name 'two words'" in result.output
    with pytest.raises(ConfigError, match="night is not running .*interrupted"):
        stop_job(find_job("night", tmp_path), timeout=1)


def test_stop_gives_up_after_its_timeout(start: Callable[..., Child], tmp_path: Path) -> None:
    child = start(manner="deaf")
    with pytest.raises(StorageError, match=f"process {child.pid} is still there"):
        stop_job(read_job(tmp_path / "night"), timeout=0.05)
    assert child.poll() is None


def test_runs_of_a_glob_are_stopped_and_shown_together(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    children = [start("night_a"), start("night_b")]
    start("day")
    edit_state(tmp_path / "night_b", name="night_b")
    stopped = json.loads(invoke("stop", "night_*", "--output-dir", str(tmp_path), "--json").output)
    assert [entry["run"]["name"] for entry in stopped["runs"]] == ["night_a", "night_b"]
    assert [child.poll() is None for child in children] == [False, False]
    assert read_job(tmp_path / "day").running
    shown = invoke("show", "night_*", "day", "--output-dir", str(tmp_path)).output
    assert [line.split(",")[0] for line in shown.splitlines() if "heartbeat" in line] == [
        "night_a: interrupted",
        "night_b: interrupted",
        "day: generating",
    ]
    with pytest.raises(ConfigError, match="none of these 2 runs is running"):
        invoke("stop", "night_*", "--output-dir", str(tmp_path))
    with pytest.raises(ConfigError, match="names 2 runs, it must be one"):
        invoke("tail", "night_*", "--output-dir", str(tmp_path))
    listed = json.loads(invoke("list", "night_*", "--output-dir", str(tmp_path), "--json").output)
    assert {run["name"] for run in listed["runs"]} == {"night_a", "night_b"}


def test_modes_of_one_process_are_stopped_by_one_signal(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    start("night")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "night" / "state.json", tmp_path / "other")
    stopped = stop_jobs(find_jobs(["*"], tmp_path), timeout=30)
    assert len(stopped) == 2 and stopped[0][1] == stopped[1][1]


def test_results_that_were_copied_without_their_state_are_a_finished_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "first", rows=[{"token_recall": 1.0}])
    (run / "state.json").unlink()
    (run / "config.hash").unlink()
    job = read_job(run)
    assert (job.phase, job.pid, job.running, job.token_recall) == ("finished", None, False, 1.0)
    assert "first: finished, 1/1 rows\n" in invoke("show", str(run)).output


def test_a_run_whose_folder_was_renamed_has_its_new_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "first", rows=[{"token_recall": 1.0}])
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "name": "first"}))
    run = run.rename(tmp_path / "second")
    shown = invoke("show", str(run)).output
    assert shown.startswith("second: finished") and "first" not in shown


def test_a_killed_run_has_died(start: Callable[..., Child], tmp_path: Path) -> None:
    child = start()
    child.kill()
    child.wait()
    job = read_job(tmp_path / "night")
    assert (job.phase, job.alive, job.unfinished) == ("died", False, True)
    assert "Died without finishing: night" in invoke("list", "--output-dir", str(tmp_path)).output
    assert "giving its command again" in invoke("show", str(tmp_path / "night")).output
    with pytest.raises(ConfigError, match="not running"):
        stop_job(job, timeout=1)


def test_a_failed_run_is_shown_with_its_error(start: Callable[..., Child], tmp_path: Path) -> None:
    start()
    edit_state(tmp_path / "night", phase="failed", error="no weights here", exit_code=4)
    shown = invoke("show", "night", "--output-dir", str(tmp_path)).output
    assert "night: failed" in shown and "Error: no weights here" in shown


def test_a_zombie_has_died(start: Callable[..., Child], tmp_path: Path) -> None:
    child = start()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not collected
    assert read_job(tmp_path / "night").phase == "died"


def test_a_pid_that_was_given_to_another_process_is_never_signalled(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start()
    running = read_job(tmp_path / "night")
    assert running.pid_started is not None
    edit_state(tmp_path / "night", pid_started=running.pid_started - 60)
    job = read_job(tmp_path / "night")
    assert job.phase == "died"
    with pytest.raises(ConfigError, match="not running"):
        stop_job(job, timeout=1)
    tell(child, "log alive")


def test_a_finished_mode_of_a_living_process_is_not_stopped(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start()
    edit_state(tmp_path / "night", phase="finished")
    with pytest.raises(ConfigError, match="phase: finished"):
        stop_job(read_job(tmp_path / "night"), timeout=1)
    tell(child, "log alive")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"phase": "loading", "pid": "x"}'])
def test_a_damaged_state_is_named_and_does_not_hide_other_runs(
    start: Callable[..., Child], tmp_path: Path, content: str
) -> None:
    start()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.hash").write_text("0\n")
    (broken / "state.json").write_text(content)
    with pytest.raises(DataError, match=r"broken/state.json is damaged"):
        find_job("broken", tmp_path)
    assert [job.phase for job in list_jobs(tmp_path)] == ["generating", "damaged"]
    assert "state.json is damaged" in invoke("list", "--output-dir", str(tmp_path)).output


def test_what_is_no_run_is_said(start: Callable[..., Child], tmp_path: Path) -> None:
    start()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.hash").mkdir()
    with pytest.raises(DataError, match=r"state.json is missing"):
        find_job("plain", tmp_path)
    (tmp_path / "plain" / "config.hash").rmdir()
    with pytest.raises(ConfigError, match="plain is not a run folder"):
        find_job("plain", tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'night'"):
        find_job("nigth", tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        list_jobs(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is a file"):
        list_jobs(tmp_path / "night" / "state.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            list_jobs(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "night" / "state.json").mkdir(parents=True)
    (tmp_path / "night" / "experiment.log").mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        find_job("night", tmp_path)
    with pytest.raises(StorageError, match="Is a directory"):
        last_lines(tmp_path / "night" / "experiment.log", 3)


def test_tail_reads_the_end(tmp_path: Path) -> None:
    log = tmp_path / "experiment.log"
    with pytest.raises(ConfigError, match="no log yet"):
        last_lines(log, 3)
    log.write_text("".join(f"line {i} {'ü' * 40_000}\n" for i in range(9)) + "torn")
    assert [line[:6] for line in last_lines(log, 3)] == ["line 7", "line 8", "torn"]
    assert len(last_lines(log, 100)) == 10
    assert last_lines(log, 0) == []


def test_following_loses_nothing_across_a_rotation(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start()
    follower = LogFollower(tmp_path / "night" / "experiment.log", 2)
    assert follower.new_text() == "second\nthird\n"
    tell(child, "log before")
    tell(child, "rotate")
    tell(child, "log after")
    assert follower.new_text() == "before\nafter\n"
    tell(child, "log later")
    assert follower.new_text() == "later\n"
    (tmp_path / "night" / "experiment.log").unlink()
    (tmp_path / "night" / "experiment.log").write_text("cut\n")
    assert follower.new_text() == "cut\n"
    follower.close()


def test_following_ends_with_the_process(start: Callable[..., Child], tmp_path: Path) -> None:
    child = start()
    following = subprocess.Popen(
        [sys.executable, "-m", "slm_vllm", "runs", "tail", str(tmp_path / "night"), "-n1", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "third\n"
    tell(child, "log fourth")
    assert following.stdout.readline() == "fourth\n"
    assert child.stdin is not None
    child.stdin.write("log last\nfinish\n")
    child.stdin.flush()
    child.wait()
    rest, errors = following.communicate(timeout=30)
    assert rest == "last\n" and errors == "night: finished\n"
    assert following.returncode == 0


def test_a_real_run_is_shown_with_its_results(make_config: Callable[..., Config]) -> None:
    config = make_config()
    evaluate([config], RunOptions(make_engine=FakeEngine().factory()))
    name, output_dir = config.experiment.name, config.experiment.output_dir
    job = find_job(name, Path(output_dir))
    assert job.phase == "finished" and (job.done, job.total) == (10, 10)
    assert job.token_recall is not None and job.questions_per_second is not None
    shown = invoke("show", name, "--output-dir", output_dir).output
    assert "token recall" in shown and "predictions.parquet" in shown
    assert "giving its command again" not in shown
    content = json.loads(invoke("show", name, "--output-dir", output_dir, "--json").output)
    assert content["results"]["counts"]["total"] == 10
    assert f"{job.token_recall:.3f}" in invoke("list", "--output-dir", output_dir).output


def test_the_runs_of_a_sweep_are_listed(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config(f"experiment.output_dir={tmp_path / 'out' / 'sweep'}")
    evaluate([config], RunOptions(make_engine=FakeEngine().factory()))
    assert [job.name for job in list_jobs(tmp_path / "out")] == [config.experiment.name]
    # By the name that the other commands take.
    listed = invoke("list", "--output-dir", str(tmp_path / "out")).output
    assert listed.splitlines()[-1].split()[0] == f"sweep/{config.experiment.name}"
    assert find_job(f"sweep/{config.experiment.name}", tmp_path / "out").phase == "finished"

"""Runs handed to a ClearML queue, and what an agent's process makes of their tasks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from slm_vllm.cli.eval import command
from slm_vllm.errors import ConfigError
from slm_vllm.tracking.clearml.arrange import TASK_VARIABLE
from slm_vllm.tracking.clearml.queue import take_settings
from slm_vllm.tracking.clearml.settings import find_clearml
from slm_vllm.tracking.cursor import Cursor, load_cursor, save_cursor
from support.clearml_loopback import Loopback
from support.tracked import record, sync

pytestmark = pytest.mark.slow

RUN = ["--model", "demo", "--dataset", "demo", "--samples", "3"]


def submit(*words: str) -> Result:
    return CliRunner().invoke(command, [*RUN, *words])


@pytest.fixture
def queues(configured: Loopback) -> Loopback:
    configured.queues = {"cpu": [], "gpu": []}
    return configured


def parameters(task: dict[str, Any]) -> dict[str, str]:
    return {name: entry["value"] for name, entry in task["hyperparams"]["Args"].items()}


def test_a_run_becomes_a_queued_task(queues: Loopback) -> None:
    done = submit(
        "--mode", "retriever", "--name", "tried", "--queue", "gpu", "--overwrite",
        "generation.max_new_tokens=7",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    task = queues.task
    assert queues.queues == {"cpu": [], "gpu": [task["id"]]}
    assert (task["name"], task["status"]) == ("tried", "queued")
    assert task["id"] in done.output and queues.url in done.output
    assert parameters(task) == {
        "model": "demo",
        "dataset": "demo",
        "experiment.max_samples": "3",
        "experiment_mode": "retriever",
        "experiment.name": "'tried'",
        "generation.max_new_tokens": "7",
    }
    assert task["script"]["entry_point"] == "-m slm_vllm eval --queued --overwrite"
    (project,) = queues.projects.values()
    assert project["name"] == "slm-experiments" and task["project"] == project["id"]
    assert "clearml" not in sys.modules


def test_each_mode_is_a_task(queues: Loopback) -> None:
    done = submit("--mode", "no_context,oracle", "--name", "two", "--queue", "cpu", "--json")
    tasks = json.loads(done.output)["tasks"]
    assert [task["name"] for task in tasks] == ["two_no_context", "two_oracle"]
    assert queues.queues["cpu"] == [task["task"] for task in tasks]


def test_an_unknown_queue_is_named_with_those_there_are(queues: Loopback) -> None:
    done = submit("--queue", "gpus")
    assert isinstance(done.exception, ConfigError)
    assert "gpus" in str(done.exception) and "cpu, gpu" in str(done.exception)
    assert not queues.tasks


def test_a_task_that_cannot_be_queued_is_taken_back(queues: Loopback) -> None:
    queues.after = lambda endpoint: (
        queues.queues.pop("gpu", None) if endpoint == "tasks.create" else None
    )
    assert submit("--queue", "gpu").exception is not None
    assert not queues.tasks


@pytest.mark.parametrize(
    "words", [["generation.max_new_tokens=many"], ["--no-clearml"], ["--config-dir", "."]]
)
def test_a_mistake_reaches_no_server(queues: Loopback, words: list[str]) -> None:
    assert isinstance(submit("--queue", "gpu", *words).exception, ConfigError)
    assert not queues.calls


@pytest.mark.parametrize(
    "value", ["http://me:pass@host/v1", "http://host/loopback-secret", "http://host/aws-secret"]
)
def test_secrets_are_not_sent(
    queues: Loopback, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    done = submit("--engine", "openai", "--base-url", value, "--queue", "gpu")
    assert isinstance(done.exception, ConfigError) and value not in str(done.exception)
    assert not queues.calls


def test_without_a_server_it_says_what_to_set(unconfigured: None) -> None:
    assert "CLEARML_API_ACCESS_KEY" in str(submit("--queue", "gpu").exception)
    with pytest.raises(ConfigError, match="CLEARML_TASK_ID"):
        take_settings({})


def test_a_clone_edited_in_the_page_is_what_the_agent_runs(
    queues: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit("--queue", "gpu", "--name", "first")
    clone = queues.answer("tasks.clone", {"task": queues.task["id"]})["id"]
    values = queues.tasks[clone]["hyperparams"]["Args"]
    values["experiment.max_samples"]["value"] = "5"
    values["experiment.name"]["value"] = "second"
    ran: list[Any] = []
    monkeypatch.setattr("slm_vllm.cli.eval._run", lambda configs, *_, **__: ran.extend(configs))
    monkeypatch.setenv("CLEARML_TASK_ID", clone)
    monkeypatch.setenv(TASK_VARIABLE, "")  # put back after the test
    assert CliRunner().invoke(command, ["--queued"]).exit_code == 0
    (config,) = ran
    assert (config.experiment.name, config.experiment.max_samples) == ("second", 5)
    assert config.model.name == "demo"


def test_results_arrive_in_the_task_of_the_queue(
    queues: Loopback,
    run_folder: Path,
    config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit("--queue", "gpu", "--name", "tracked")
    queued = queues.task
    script, given = queued["script"], parameters(queued)
    monkeypatch.setenv(TASK_VARIABLE, queued["id"])
    record(run_folder, config())
    said: list[str] = []
    assert sync(run_folder, said.append), said
    monkeypatch.delenv(TASK_VARIABLE)
    assert sync(run_folder, said.append)
    assert queues.task["status"] == "completed"  # there is no other task
    assert "results" in queues.artifacts() and queued["id"] in said[0]
    assert queues.task["script"] == script and parameters(queues.task) == given
    assert len(queues.task["hyperparams"]) > 1


def test_another_task_of_the_same_run_is_told_everything(tmp_path: Path) -> None:
    path = tmp_path / "clearml.json"
    save_cursor(path, Cursor(destination="http://host#one", spool=9))
    assert load_cursor(path, "http://host#one").spool == 9
    assert load_cursor(path, "http://host").spool == 9
    assert load_cursor(path, "http://host#two").spool == 0
    assert load_cursor(path, "http://other").spool == 0


def test_an_agent_without_a_file_leaves_the_environment_in_charge(tmp_path: Path) -> None:
    keys = {"CLEARML_API_ACCESS_KEY": "a", "CLEARML_API_SECRET_KEY": "s"}
    found = find_clearml({**keys, "CLEARML_CONFIG_FILE": "None"}, folder=tmp_path, home=tmp_path)
    assert (found.source, found.problem) == ("environment", None)
    assert "CLEARML_CONFIG_FILE" not in found.environment
    wrong = find_clearml({**keys, "CLEARML_CONFIG_FILE": "gone"}, folder=tmp_path, home=tmp_path)
    assert wrong.source is None and "no such file" in str(wrong.problem)

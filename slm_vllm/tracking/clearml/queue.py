"""Enqueues runs in ClearML, and reads their settings back on the agent."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slm_vllm.checkout import checkout, git_output
from slm_vllm.errors import ConfigError, MissingExtraError, SlmVllmError
from slm_vllm.tracking.base import TrackerError
from slm_vllm.tracking.clearml.sdk_process import ask
from slm_vllm.tracking.clearml.settings import clearml_installed, find_clearml

if TYPE_CHECKING:
    from slm_vllm.config.schema import Config

_SECTION = "Args"
BOUND_SECONDS = 60.0
_SECRETS = ("CLEARML_API_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_URL_WITH_PASSWORD = re.compile(r"://[^/\s@]+@")


def enqueue_runs(
    configs: Sequence[Config],
    words: Sequence[Sequence[str]],
    queue: str,
    flags: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Makes a task of each run and puts it in a queue.

    Args:
        configs: What to run, as the words give it on this machine.
        words: The overrides of each, in order; a later one of the same key wins.
        queue: Name of the queue.
        flags: Options of `slm-vllm eval` that are no settings, such as `--overwrite`.

    Returns:
        `name`, `task` and `url` of each.

    Raises:
        ConfigError: ClearML is not configured, there is no such queue, or a secret would be sent.
        TrackerError: The server did not do it.
    """
    parameters = [_parameters(one) for one in words]
    tasks = [
        {
            "name": config.experiment.name,
            "project": config.tracking.project,
            "type": config.tracking.task_type,
            "parameters": values,
            "script": _script(config, flags),
        }
        for config, values in zip(configs, parameters, strict=True)
    ]
    answer = _ask({"queue": queue, "tasks": tasks})
    return [dict(task) for task in answer["tasks"]]


def take_settings(environment: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """What the task of this process says, as it was edited in the web page.

    Returns:
        The task's id, and its settings as overrides.

    Raises:
        ConfigError: No agent started this process, or its task holds no settings.
        TrackerError: The server did not answer.
    """
    task = (os.environ if environment is None else environment).get("CLEARML_TASK_ID")
    if not task:
        raise ConfigError(
            "--queued is for the clearml-agent that runs a task of --queue: CLEARML_TASK_ID is "
            "not set"
        )
    values = _ask({"task": task})["parameters"]
    if not values:
        raise ConfigError(f"ClearML task {task} has no hyperparameters in section {_SECTION}")
    return task, [f"{key}={value}" for key, value in values.items()]


def _parameters(words: Sequence[str]) -> dict[str, str]:
    from slm_vllm.config.overrides import may_hold_secret, parse_override

    values: dict[str, str] = {}
    known = {**os.environ, **find_clearml().environment}
    secrets = [known[name] for name in _SECRETS if known.get(name)]
    for word in words:
        override = parse_override(word)
        if _URL_WITH_PASSWORD.search(override.value) or any(s in override.value for s in secrets):
            raise ConfigError(
                f"{override.key}: holds a password or key, which everybody could read in the task. "
                "Set it in the environment of the agent"
            )
        if may_hold_secret(word):
            raise ConfigError(
                f"{override.key}: may hold a secret, which everybody could read in the task. Write "
                "it into configs/config.yaml on the machine of the agent"
            )
        # A group chosen late would undo nothing set before it: Hydra puts values over groups.
        values.pop(override.key, None)
        values[override.key] = override.value
    return values


def _script(config: Config, flags: Sequence[str]) -> dict[str, Any]:
    """Code and packages as the agent wants them; without a remote it uses what is installed."""
    root = checkout()
    script: dict[str, Any] = {
        "binary": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "entry_point": " ".join(["-m", "slm_vllm", "eval", "--queued", *flags]),
        "working_dir": ".",
        "requirements": {},
    }
    remote = git_output(root, "remote", "get-url", "origin") if root else None
    if root and remote:
        script["repository"] = re.sub(r"://[^/@]+@", "://", remote)
        script["version_num"] = git_output(root, "rev-parse", "HEAD") or ""
        kind = config.hardware.name
        listed = root / "requirements" / f"{kind if kind in ('cpu', 'v100') else 'cuda'}.txt"
        if listed.is_file():
            lines = listed.read_text(encoding="utf-8").splitlines()
            pins = [line for line in lines if line.strip() and not line.startswith("#")]
            script["requirements"] = {"pip": "\n".join(pins) + "\n"}
    return script


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """Has a request done by a process that is killed when it hangs."""
    settings = find_clearml()
    if settings.source is None:
        raise ConfigError(
            f"ClearML is not configured{f' ({settings.problem})' if settings.problem else ''}: set "
            "CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, or "
            "CLEARML_CONFIG_FILE (docs/clearml.md)"
        )
    if not clearml_installed():
        raise MissingExtraError("clearml", "clearml", "A ClearML queue")
    answers = ask("queue", request, settings.environment, BOUND_SECONDS)
    if answers.timed_out:
        raise TrackerError(
            f"ClearML did not answer within {BOUND_SECONDS:.0f} s; the task may have been made"
        )
    if not answers.found:
        raise TrackerError(f"ClearML could not be asked: {answers.problem}")
    (answer,) = answers.found
    if "error" in answer:
        raise (ConfigError if answer["mendable"] else TrackerError)(answer["error"])
    return dict(answer)


def answer(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the process does."""
    try:
        yield _answer(request)
    except SlmVllmError as error:
        yield {"error": str(error), "mendable": isinstance(error, ConfigError)}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from slm_vllm.tracking.clearml.api import ClearMLApi

    api = ClearMLApi()
    if "task" in request:
        task = api.call("tasks.get_by_id", {"task": request["task"]})["task"]
        section = (task.get("hyperparams") or {}).get(_SECTION) or {}
        return {"parameters": {name: entry["value"] for name, entry in section.items()}}
    queue = _queue(api, request["queue"])
    return {"tasks": [_enqueue(api, queue, task) for task in request["tasks"]]}


def _queue(api: Any, name: str) -> str:
    body = {"only_fields": ["id", "name"]}
    queues = {q["name"]: q["id"] for q in api.call("queues.get_all", body).get("queues") or []}
    if name not in queues:
        there = ", ".join(sorted(queues)) or "none"
        raise ConfigError(f"--queue {name}: {api.host} has no such queue. There are: {there}")
    return str(queues[name])


def _enqueue(api: Any, queue: str, task: dict[str, Any]) -> dict[str, str]:
    from slm_vllm.tracking.clearml.server import project_id

    project = project_id(api, task["project"])
    parameters = {
        name: {"section": _SECTION, "name": name, "value": value, "type": ""}
        for name, value in task["parameters"].items()
    }
    body = {
        "name": task["name"],
        "project": project,
        "type": task["type"],
        "script": task["script"],
        "hyperparams": {_SECTION: parameters},
    }
    made = str(api.call("tasks.create", body)["id"])
    try:
        api.call("tasks.enqueue", {"task": made, "queue": queue})
    except TrackerError:
        api.call("tasks.delete", {"task": made, "force": True})
        raise
    url = f"{api.web}/projects/{project}/experiments/{made}"
    return {"name": task["name"], "task": made, "url": url}

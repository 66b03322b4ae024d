"""Publishes to a ClearML server."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from slm_vllm import durable
from slm_vllm.config.schema import TrackingConfig
from slm_vllm.tracking.base import (
    BaseTracker,
    MakeTracker,
    Publication,
    RejectedError,
    TrackerError,
)
from slm_vllm.tracking.clearml.api import ClearMLApi
from slm_vllm.tracking.clearml.arrange import OUTPUT_URI_VARIABLE, TASK_VARIABLE, arrange_clearml
from slm_vllm.tracking.clearml.events import (
    IMAGE,
    LOG,
    api_events,
    event_key,
    image_event,
    same_content,
    task_fields,
)
from slm_vllm.tracking.clearml.storage import output_place, task_folder, upload
from slm_vllm.tracking.events import Artifact, Ended, Event, Sample, Started

_ENDS = {
    "finished": ("tasks.completed", "completed"),
    "interrupted": ("tasks.stopped", "stopped"),
    "died": ("tasks.stopped", "stopped"),
    "failed": ("tasks.failed", "failed"),
}
_REASONS = {
    "finished": "the run is finished",
    "interrupted": "the run was interrupted; the same command resumes it",
    "died": "the run's process ended without a word; the same command resumes it",
    "failed": "the run failed; its log says why",
}
_PREVIEW_BYTES = 2000
_READ_BACK_TRIES = 4


class ClearMLServer(BaseTracker):
    """One task for one run folder, taken up by every publisher of that folder.

    `memory` holds `token` (written into the task's description before it is made, so that it is
    found again when the answer got lost), `project`, `task` and the artifacts that arrived.
    """

    title = "ClearML"

    @classmethod
    def arrange(cls, config: TrackingConfig, *, asked: bool) -> Publication:
        """Publishes to the configured server, or keeps an offline session."""
        return arrange_clearml(config, asked=asked)

    @classmethod
    def connect(cls) -> tuple[str, MakeTracker]:
        """Logs in, once for all runs."""
        api = ClearMLApi()
        task, output_uri = os.environ.get(TASK_VARIABLE), os.environ.get(OUTPUT_URI_VARIABLE)
        make = functools.partial(cls, api=api, output_uri=output_uri, given_task=task)
        return f"{api.host}#{task}" if task else api.host, make

    @classmethod
    def undelivered(cls, folder: Path, problem: str) -> str:
        """Names the command that publishes the rest."""
        return (
            f"{cls.title}: not everything is published ({problem}). Later: "
            f"slm-vllm clearml sync {folder}"
        )

    def __init__(
        self,
        folder: Path,
        memory: dict[str, Any],
        remember: Callable[[], None],
        *,
        api: ClearMLApi,
        output_uri: str | None = None,
        given_task: str | None = None,
    ) -> None:
        super().__init__(folder, memory, remember)
        self._given_task = given_task
        self._api, self._output_uri = api, output_uri
        self._images: dict[tuple[Any, ...], str] | None = None

    @property
    def url(self) -> str | None:
        """The task in the web page."""
        project, task = self.memory.get("project"), self.memory.get("task")
        if task is None:
            return None
        return f"{self._api.web}/projects/{project}/experiments/{task}/output/log"

    def start(self, event: Started) -> None:
        """Makes the task or takes it up, and sets everything known at the beginning."""
        self.memory["place"] = {"project": event.project, "name": event.name}
        if "task" not in self.memory and self._given_task is not None:
            self.memory["task"], self.memory["given"] = self._given_task, True
            self.memory["project"] = self._get_task().get("project")
            self.remember()
        if "task" not in self.memory:
            self.memory["task"] = self._find_task() or self._make_task(event)
            self.remember()
        self._reopen()
        fields = task_fields(event)
        if self.memory.get("given"):
            self._keep_given(fields)
        self._api.call("tasks.edit", {"task": self._task, "force": True, **fields})

    def report(self, events: Sequence[Event], *, uncertain: bool) -> None:
        """Sends events; of uncertain ones only those the server does not have."""
        wanted = list(api_events(self._task, events, _now()))
        if uncertain:
            wanted = self._lacking(wanted)
        self._api.add_events(wanted)

    def attach(self, file: Sample | Artifact) -> None:
        """Stores a page among the debug samples, or a file among the artifacts."""
        if isinstance(file, Sample):
            self._attach_sample(file)
        elif (self.folder / file.path).exists():
            self._attach_artifact(file)

    def end(self, event: Ended) -> None:
        """Sets the task's status."""
        endpoint, status = _ENDS[event.phase]
        if self._status() != status:
            self._api.call(
                endpoint,
                {"task": self._task, "force": True, "status_reason": _REASONS[event.phase]},
            )

    def missing(self, events: Sequence[Event], texts: int, phase: str | None) -> list[str]:
        """Reads the task, its artifacts and its events back.

        A server shows what it took after a second or so: it is asked several times.
        """
        wanted = list(api_events(self._task, events, 0))
        latest = {event_key(event): event for event in wanted}
        lacking: list[str] = []
        for attempt in range(_READ_BACK_TRIES):
            time.sleep(attempt)
            lacking = self._missing_now(list(latest.values()), events, texts, phase)
            if not lacking:
                break
        return lacking

    def _missing_now(
        self, wanted: list[dict[str, Any]], events: Sequence[Event], texts: int, phase: str | None
    ) -> list[str]:
        lacking = [
            f"{event['type']} {event['metric']}/{event['variant']} at {event['iter']}"
            for event in self._lacking(wanted)
        ]
        found = self._api.count_events(self._task, LOG)
        if found < texts:
            lacking.append(f"{texts - found} of {texts} console texts")
        task = self._get_task()
        if phase is not None and task.get("status") != _ENDS[phase][1]:
            self.end(Ended(phase))
            lacking.append(f"status {_ENDS[phase][1]}")
        listed = {
            artifact["key"] for artifact in (task.get("execution") or {}).get("artifacts") or []
        }
        names = {event.name for event in events if isinstance(event, Artifact)}
        lacking += [
            f"artifact {name}"
            for name in sorted(names & set(self.memory.get("artifacts") or {}))
            if name not in listed
        ]
        pages = {
            (IMAGE, event.title, event.series, event.step)
            for event in events
            if isinstance(event, Sample)
        }
        if pages:
            self._images = None
            lacking += [f"page {key[2]}" for key in sorted(pages - set(self._known_images()))]
        return lacking

    @property
    def _task(self) -> str:
        task = self.memory.get("task")
        if task is None:
            raise TrackerError("the task is not made yet")
        return str(task)

    @property
    def _task_folder(self) -> str:
        place = output_place(self._output_uri, self._api.files_server)
        names = self.memory["place"]
        return task_folder(place.url, names["project"], names["name"], self._task)

    def _find_task(self) -> str | None:
        """The task of an earlier attempt whose answer got lost."""
        token = self.memory.get("token")
        if token is None:
            self.memory["token"] = uuid4().hex
            self.remember()
            return None
        body = {
            "_any_": {"fields": ["comment"], "pattern": token},
            "only_fields": ["id", "comment", "project"],
        }
        for task in self._api.call("tasks.get_all", body).get("tasks") or []:
            if token in (task.get("comment") or ""):
                self.memory["project"] = task.get("project")
                return str(task["id"])
        return None

    def _make_task(self, event: Started) -> str:
        self.memory["project"] = project_id(self._api, event.project)
        body = {
            "name": event.name,
            "project": self.memory["project"],
            "type": event.task_type,
            "tags": list(event.tags),
            # What the page shows as run from a shell and not by an agent.
            "system_tags": ["development"],
            "comment": f"slm-vllm run {event.name} ({self.memory['token']})",
        }
        return str(self._api.call("tasks.create", body)["id"])

    def _keep_given(self, fields: dict[str, Any]) -> None:
        """What a task of a queue came with is what its clones are run from."""
        task = self._get_task()
        del fields["script"]
        fields["tags"] = sorted({*(task.get("tags") or []), *fields["tags"]})
        fields["hyperparams"] = {**(task.get("hyperparams") or {}), **fields["hyperparams"]}

    def _get_task(self) -> dict[str, Any]:
        return dict(self._api.call("tasks.get_by_id", {"task": self._task})["task"])

    def _status(self) -> str:
        return str(self._get_task().get("status"))

    def _reopen(self) -> str:
        """Makes the task one that can be edited and returns its status before."""
        status = self._status()
        if status != "in_progress":
            self._api.call("tasks.started", {"task": self._task, "force": True})
        return status

    def _lacking(self, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of the events that the server does not have, or has with other content."""
        there: dict[tuple[Any, ...], dict[str, Any]] = {}
        for kind in sorted({event["type"] for event in wanted}):
            for event in self._api.events(self._task, kind):
                there[event_key(event)] = event
        latest = {event_key(event): event for event in wanted}
        return [
            event
            for key, event in latest.items()
            if key not in there or not same_content(event, there[key])
        ]

    def _known_images(self) -> dict[tuple[Any, ...], str]:
        """URL of each page the server lists."""
        if self._images is None:
            found = self._api.events(self._task, IMAGE)
            self._images = {event_key(event): str(event.get("url")) for event in found}
        return self._images

    def _attach_sample(self, sample: Sample) -> None:
        key = (IMAGE, sample.title, sample.series, sample.step)
        # The name holds the content's hash: what the server lists under it is this very page.
        digest = hashlib.sha256(sample.html.encode("utf-8", "replace")).hexdigest()[:12]
        name = f"{sample.series}_{sample.step}_{digest}.html"
        if self._known_images().get(key, "").endswith(quote(name)):
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(sample.html, encoding="utf-8", errors="replace")
            url = upload(path, f"{self._task_folder}/metrics/{sample.title}/{name}")
        event = image_event(self._task, sample.title, sample.series, sample.step, url, _now())
        known = self._known_images()
        # Until the answer is there nobody knows what the server has.
        self._images = None
        self._api.add_events([event])
        self._images = {**known, key: url}

    def _attach_artifact(self, artifact: Artifact) -> None:
        path = self.folder / artifact.path
        digest = durable.sha256_of(path)
        arrived = self.memory.setdefault("artifacts", {})
        if arrived.get(artifact.name, {}).get("hash") == digest:
            return
        url = upload(path, f"{self._task_folder}/artifacts/{artifact.name}/{path.name}")
        entry = {
            "key": artifact.name,
            "type": "custom",
            "mode": "output",
            "uri": url,
            "hash": digest,
            "content_size": path.stat().st_size,
            "timestamp": int(time.time()),
            "type_data": {"preview": _preview(path)},
        }
        before = self._reopen()
        body = {"task": self._task, "artifacts": [entry], "force": True}
        self._api.call("tasks.add_or_update_artifacts", body)
        for phase, (_, status) in _ENDS.items():
            if before == status:
                self.end(Ended(phase))
                break
        arrived[artifact.name] = {"hash": digest, "uri": url}
        self.remember()


def project_id(api: ClearMLApi, name: str) -> str:
    """The project of a name, made if there is none."""
    body = {"name": f"^{re.escape(name)}$", "only_fields": ["id", "name"]}
    for project in api.call("projects.get_all", body).get("projects") or []:
        if project["name"] == name:
            return str(project["id"])
    return str(api.call("projects.create", {"name": name, "description": ""})["id"])


def check_task(api: ClearMLApi, project: str) -> str:
    """Makes a task and deletes it.

    Returns:
        Its id.

    Raises:
        RejectedError: The credentials do not allow it.
        TrackerError: The server did not do it.
    """
    body = {"name": "slm-vllm check", "type": "testing", "comment": f"made and deleted: {project}"}
    task = str(api.call("tasks.create", body)["id"])
    api.call("tasks.delete", {"task": task, "force": True})
    try:
        api.call("tasks.get_by_id", {"task": task})
    except RejectedError:
        return task
    raise TrackerError(f"{api.host} still has task {task} after it was deleted")


def _preview(path: Path) -> str:
    if path.suffix not in (".json", ".yaml"):
        return f"{path.name}, {path.stat().st_size} bytes"
    with path.open("rb") as file:
        return file.read(_PREVIEW_BYTES).decode("utf-8", "replace")


def _now() -> int:
    return int(time.time() * 1000)

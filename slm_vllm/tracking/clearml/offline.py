"""Keeps a run as one of ClearML's own offline sessions, for `Task.import_offline_session`."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slm_vllm.config.schema import TrackingConfig
from slm_vllm.durable import publish
from slm_vllm.errors import MissingExtraError
from slm_vllm.rundir.names import TRACKING
from slm_vllm.tracking.base import BaseTracker, MakeTracker, Publication, TrackerError
from slm_vllm.tracking.clearml.events import task_fields
from slm_vllm.tracking.clearml.settings import find_clearml
from slm_vllm.tracking.events import (
    Artifact,
    Ended,
    Event,
    Figure,
    Sample,
    Scalars,
    SingleValues,
    Started,
    Table,
    Text,
)
from slm_vllm.tracking.plots import table_figure

_SESSION = "clearml_session.zip"
_FRAMEWORKS = (
    "artifacts", "catboost", "detect_repository", "fastai", "fire", "gradio", "hydra", "joblib",
    "jsonargparse", "lightgbm", "matplotlib", "megengine", "pytorch", "scikit", "tensorboard",
    "tensorflow", "tfdefines", "xgboost", "xgb",
)  # fmt: skip


class ClearMLOffline(BaseTracker):
    """Rebuilds the session from the whole spool each time; nothing of an earlier one is used."""

    title = "ClearML offline session"
    is_live = False

    @classmethod
    def arrange(cls, config: TrackingConfig, *, asked: bool) -> Publication:
        """Keeps a session, whether or not there is a server."""
        return Publication(config.tracker, find_clearml().environment, config.close_timeout)

    @classmethod
    def connect(cls) -> tuple[str, MakeTracker]:
        """Imports the SDK, most of the work of a session, while the run goes on."""
        try:
            import clearml  # noqa: F401
        except ImportError:
            raise MissingExtraError("clearml", "clearml", "An offline session") from None
        return super().connect()

    def __init__(self, folder: Path, memory: dict[str, Any], remember: Callable[[], None]) -> None:
        super().__init__(folder, memory, remember)
        self._cache = folder / TRACKING / ".clearml"
        shutil.rmtree(self._cache, ignore_errors=True)
        os.environ["CLEARML_CACHE_DIR"] = str(self._cache.resolve())
        self._task: Any = None

    @property
    def url(self) -> str | None:
        """The session's file."""
        return str(self.folder / TRACKING / _SESSION)

    def start(self, event: Started) -> None:
        """Opens the session."""
        from clearml import Task
        from clearml.config import ConfigWrapper

        # Without its reporting process the SDK loses nothing and closes at once.
        ConfigWrapper.set_overrides({"sdk": {"development": {"report_use_subprocess": False}}})
        Task.set_offline(True)
        self._task = Task.init(
            project_name=event.project,
            task_name=event.name,
            task_type=event.task_type,
            tags=list(event.tags),
            reuse_last_task_id=False,
            output_uri=False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=dict.fromkeys(_FRAMEWORKS, False),
            auto_resource_monitoring=False,
            auto_connect_streams=False,
        )
        # One call: the next one would replace what this one set.
        self._task.set_parameters(
            {
                f"{section}/{key}": value
                for section, values in event.parameters.items()
                for key, value in values.items()
            }
        )
        self._task.set_configuration_object("config.yaml", event.configuration, config_type="yaml")
        script = task_fields(event)["script"]
        # Without the scan of the repository the task has no script section to write to.
        self._task.set_comment(f"{script['entry_point']}\ncommit {script['version_num'] or '-'}")

    def report(self, events: Sequence[Event], *, uncertain: bool) -> None:
        """Writes events into the session."""
        logger = self._task.get_logger()
        for event in events:
            if isinstance(event, Scalars):
                for title, series in event.values.items():
                    for name, value in series.items():
                        logger.report_scalar(title, name, value, event.step)
            elif isinstance(event, SingleValues):
                for name, value in event.values.items():
                    logger.report_single_value(name, value)
            elif isinstance(event, (Table, Figure)):
                figure = table_figure(event) if isinstance(event, Table) else event.plotly
                # The SDK writes a title of its own into it.
                logger.report_plotly(
                    event.title, event.series, iteration=0, figure=copy.deepcopy(dict(figure))
                )
            elif isinstance(event, Text):
                logger.report_text(event.text, print_console=False)

    def attach(self, file: Sample | Artifact) -> None:
        """Copies a page or a file into the session."""
        if isinstance(file, Sample):
            self._task.get_logger().report_media(
                title=file.title,
                series=file.series,
                iteration=file.step,
                stream=io.BytesIO(file.html.encode("utf-8", "replace")),
                file_extension=".html",
            )
        elif (self.folder / file.path).exists():
            self._task.upload_artifact(
                file.name, self.folder / file.path, wait_on_upload=True, auto_pickle=False
            )

    def end(self, event: Ended) -> None:
        """Closes the session and puts its file into the run folder."""
        left = Path(self._task.get_offline_mode_folder())
        self._task.add_tags([event.phase] if event.phase != "finished" else [])
        self._task.close()
        made = left.with_name(left.name + ".zip")
        if not made.exists():
            raise TrackerError("ClearML's SDK left no offline session")
        publish(made, self.folder / TRACKING / _SESSION)
        shutil.rmtree(self._cache, ignore_errors=True)

    def missing(self, events: Sequence[Event], texts: int, phase: str | None) -> list[str]:
        """Opens the session's file and counts."""
        with zipfile.ZipFile(self.folder / TRACKING / _SESSION) as session:
            lines = session.read("metrics.jsonl").decode().splitlines()
            task = json.loads(session.read("task.json"))
        found = sum(len(json.loads(line)) for line in lines)
        wanted = sum(_metric_events(event) for event in events)
        artifacts = {entry["key"] for entry in task["execution"]["artifacts"]}
        named = {
            event.name
            for event in events
            if isinstance(event, Artifact) and (self.folder / event.path).exists()
        }
        lacking = [f"artifact {name}" for name in sorted(named - artifacts)]
        return lacking + ([f"{wanted - found} of {wanted} values"] if found < wanted else [])


def _metric_events(event: Event) -> int:
    if isinstance(event, Scalars):
        return sum(len(series) for series in event.values.values())
    if isinstance(event, SingleValues):
        return len(event.values)
    return int(isinstance(event, (Table, Figure, Sample)))

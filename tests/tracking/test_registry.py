"""A tracker of another package: found by its entry point, told by the publisher process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.config.schema import TrackingConfig
from slm_vllm.errors import ConfigError
from slm_vllm.tracking.launch import open_tracking
from slm_vllm.tracking.registry import tracker_class, tracker_names
from support.tracked import POINTS, tracked

_TRACKER = """
import json

from slm_vllm.tracking.base import BaseTracker
from slm_vllm.tracking.events import Scalars


class Notebook(BaseTracker):
    title = "Notebook"

    def _note(self, *words):
        with (self.folder / "notes.jsonl").open("a") as file:
            file.write(json.dumps(words) + "\\n")

    def start(self, event):
        self._note("start", event.name)

    def report(self, events, *, uncertain):
        for event in events:
            if isinstance(event, Scalars):
                self._note("scalars", event.step)

    def attach(self, file):
        pass

    def end(self, event):
        self._note("end", event.phase)

    def missing(self, events, texts, phase):
        return []

    @property
    def url(self):
        return str(self.folder / "notes.jsonl")


class Broken:
    pass
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with trackers."""
    package = tmp_path / "site"
    about = package / "added_trackers-1.dist-info"
    about.mkdir(parents=True)
    (package / "added_trackers.py").write_text(_TRACKER)
    (about / "METADATA").write_text("Name: added-trackers\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[slm_vllm.trackers]\n"
        "notebook = added_trackers:Notebook\n"
        "broken = added_trackers:Broken\n"
        "absent = added_trackers:Absent\n"
    )
    monkeypatch.syspath_prepend(str(package))
    search = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))


def test_it_is_told_of_a_run(added: None, run_folder: Path, config: Callable[..., Any]) -> None:
    settings = config("tracking.tracker=notebook", "tracking.close_timeout=300")
    said = tracked(run_folder, settings)
    assert said == [f"Notebook: {run_folder / 'notes.jsonl'}"]
    notes = [json.loads(line) for line in (run_folder / "notes.jsonl").read_text().splitlines()]
    assert notes[0] == ["start", "tracked"] and notes[-1] == ["end", "finished"]
    assert {step for word, step in notes if word == "scalars"} <= {done for done, _ in POINTS}


def test_names(added: None) -> None:
    assert tracker_names() == [
        *("auto", "none", "clearml", "clearml_offline"),
        *("absent", "broken", "notebook"),
    ]
    assert tracker_class("notebook").title == "Notebook"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("notebok", "no such tracker. Did you mean 'notebook'"),
        ("broken", "added_trackers.py: Broken is no BaseTracker"),
        ("absent", "added_trackers:Absent cannot be loaded"),
    ],
)
def test_a_tracker_that_cannot_be_had_is_said_at_once(added: None, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"tracking.tracker={name}: .*{said}"):
        open_tracking(TrackingConfig(tracker=name), enabled=True, say=print)


@pytest.mark.parametrize("tracker", ["none", "notebok"])
def test_nobody_is_told_where_nobody_should_be(tracker: str) -> None:
    enabled = tracker == "none"
    with open_tracking(TrackingConfig(tracker=tracker), enabled=enabled, say=print) as tracking:
        assert tracking.pid is None

"""When a tracker that keeps whole sessions is told of the runs of a command."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.rundir.names import SPOOL
from slm_vllm.tracking import publisher
from slm_vllm.tracking.base import BaseTracker, TrackerError
from slm_vllm.tracking.events import Artifact, Ended, Event, Sample, Started
from slm_vllm.tracking.publisher import Publisher
from slm_vllm.tracking.spool import Spool


class Session(BaseTracker):
    """Notes what it is told in `told`, which all runs share."""

    is_live = False
    told: list[str] = []
    broken = False

    def start(self, event: Started) -> None:
        self.told.append(f"{self.folder.name} starts")
        if self.broken:
            raise TrackerError("no room")

    def report(self, events: Sequence[Event], *, uncertain: bool) -> None:
        """Nothing is looked at."""

    def attach(self, file: Sample | Artifact) -> None:
        """Nothing is looked at."""

    def end(self, event: Ended) -> None:
        self.told.append(f"{self.folder.name} {event.phase}")

    def missing(self, events: Sequence[Event], texts: int, phase: str | None) -> list[str]:
        return []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(Session, "told", [])
    monkeypatch.setattr(Session, "broken", False)
    monkeypatch.setattr(publisher, "tracker_class", lambda name: Session)
    monkeypatch.setattr(publisher, "_watchdog", lambda seconds: None)
    return Session.told


def say(folder: Path, *events: Event) -> None:
    spool = Spool(folder / SPOOL)
    spool.append(*events)
    spool.close()


def started(folder: Path) -> Started:
    return Started(folder.name, "p", "testing", [], {}, "", {})


class Lines(queue.Queue[Any]):
    """Does something when the publisher has looked at what there was; then the input ends."""

    def __init__(self, folders: Sequence[Path], *turns: Callable[[], None]) -> None:
        super().__init__()
        self._turns = iter([*turns, lambda: self.put(None)])
        for folder in folders:
            self.put(str(folder))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.empty():
            next(self._turns)()
            if self.empty():
                raise queue.Empty
        return super().get(block)


def test_a_run_that_has_ended_is_told_while_others_go_on(tmp_path: Path, told: list[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    seen: list[list[str]] = []
    lines = Lines(
        [first, second],
        lambda: say(first, started(first)),
        lambda: say(first, Ended("finished")),
        lambda: say(second, started(second)),
        lambda: seen.append(list(told)),
        lambda: say(second, Ended("finished")),
    )
    assert Publisher("session", 60.0).run(lines)
    assert seen == [["first starts", "first finished"]]
    assert told == ["first starts", "first finished", "second starts", "second finished"]


def test_what_an_earlier_command_left_is_not_told_before_it_goes_on(
    tmp_path: Path, told: list[str]
) -> None:
    say(tmp_path, started(tmp_path), Ended("interrupted"))
    seen: list[list[str]] = []
    lines = Lines(
        [tmp_path],
        lambda: None,
        lambda: seen.append(list(told)),
        lambda: say(tmp_path, started(tmp_path), Ended("finished")),
    )
    assert Publisher("session", 60.0).run(lines)
    assert seen == [[]] and told == [f"{tmp_path.name} starts", f"{tmp_path.name} finished"]


def test_a_session_that_broke_is_not_begun_again_in_the_middle(
    tmp_path: Path, told: list[str]
) -> None:
    Session.broken = True
    lines = Lines([tmp_path], lambda: say(tmp_path, started(tmp_path), Ended("finished")))
    assert not Publisher("session", 60.0).run(lines)
    assert told == [f"{tmp_path.name} starts"]


def test_a_run_that_was_refused_before_it_began_is_not_waited_for(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "is_live", True)
    monkeypatch.setattr(publisher.time, "sleep", lambda seconds: pytest.fail("it waits"))
    assert not Publisher("session", 3600.0).run(Lines([tmp_path]))
    assert told == []


@pytest.mark.parametrize(("tracker", "gives_way"), [("clearml", True), ("clearml_offline", False)])
def test_only_what_is_told_while_a_run_goes_on_leaves_the_processors_to_it(
    tracker: str, gives_way: bool
) -> None:
    code = (
        "import sys\n"
        "from slm_vllm.tracking import publisher\n"
        "publisher.give_way = lambda: print('gives way', flush=True)\n"
        f"sys.argv = ['publisher', '{tracker}', '--bound', '60']\n"
        "publisher.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.stdout == "gives way\n") is gives_way, done.stderr

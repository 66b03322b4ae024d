"""What a publisher tells after another one was killed; a service of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.rundir.names import LOG, SPOOL
from slm_vllm.tracking import delivery
from slm_vllm.tracking.base import TrackerError
from slm_vllm.tracking.delivery import Delivery
from slm_vllm.tracking.events import (
    Ended,
    Event,
    Figure,
    Scalars,
    SingleValues,
    Started,
    Table,
    Text,
    to_line,
)
from slm_vllm.tracking.spool import Spool, read_spool
from support.tracked import record


class Service:
    """Remembers what it is told and whether that may be a repetition; dies when it is to."""

    url = None

    def __init__(self) -> None:
        self.reports: list[tuple[list[Event], bool]] = []
        self.starts = self.texts = 0
        self.ends: list[str] = []
        self.dies_at: int | None = None
        self.lacks: list[str] = []

    def start(self, event: Event) -> None:
        self.starts += 1

    def report(self, events: Sequence[Event], *, uncertain: bool) -> None:
        self.reports.append((list(events), uncertain))
        if len(self.reports) == self.dies_at:
            raise KeyboardInterrupt

    def attach(self, file: Event) -> None:
        pass

    def end(self, event: Ended) -> None:
        self.ends.append(event.phase)

    def missing(self, events: Sequence[Event], texts: int, phase: str | None) -> list[str]:
        self.texts = texts
        return self.lacks


@pytest.fixture
def service(
    run_folder: Path, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Service:
    """It has a recorded run before it, of which it is told two events at a time."""
    monkeypatch.setattr(delivery, "_MOST_EVENTS", 2)
    record(run_folder, config())
    return Service()


def deliver(folder: Path, service: Service) -> None:
    published = Delivery(folder, lambda *_: service, "fake", "server")  # type: ignore[arg-type,return-value]
    try:
        published.finish()
    finally:
        published.close()


def test_only_what_was_being_told_when_a_publisher_died_is_told_again(
    run_folder: Path, service: Service
) -> None:
    service.dies_at = 3
    with pytest.raises(KeyboardInterrupt):
        deliver(run_folder, service)
    deliver(run_folder, service)
    told = [events for events, _ in service.reports]
    assert len(told) > 5 and told[3] == told[2]
    assert [number for number, (_, uncertain) in enumerate(service.reports) if uncertain] == [3]
    del told[3]
    assert service.texts == sum(isinstance(event, Text) for events in told for event in events)
    events = [event for event, _ in read_spool(run_folder / SPOOL)]
    reported = [
        event for event in events if isinstance(event, (Scalars, SingleValues, Table, Figure))
    ]
    assert [event for events in told for event in events if not isinstance(event, Text)] == reported
    assert (service.starts, service.ends) == (1, ["finished"])


def test_a_run_that_the_service_lacks_a_part_of_is_not_delivered(
    run_folder: Path, service: Service
) -> None:
    service.lacks = ["2 points", "the log"]
    with pytest.raises(TrackerError, match="the server lacks 2 points, the log"):
        deliver(run_folder, service)
    service.lacks = []
    deliver(run_folder, service)


def test_a_log_that_was_rotated_is_told_from_its_start(run_folder: Path, service: Service) -> None:
    deliver(run_folder, service)
    (run_folder / LOG).write_text("anew\n")
    deliver(run_folder, service)
    (last,) = service.reports[-1][0]
    assert isinstance(last, Text) and last.text == "anew\n"


def test_a_run_that_went_on_and_never_said_its_end_has_died(
    run_folder: Path, service: Service
) -> None:
    deliver(run_folder, service)
    spool = Spool(run_folder / SPOOL)
    spool.append(Started("tracked", "p", "testing", [], {}, "again: true", {}), durable=True)
    spool.close()
    deliver(run_folder, service)
    assert service.ends == ["finished", "died"]


def test_an_event_that_is_not_whole_yet_is_left_for_the_next_time(tmp_path: Path) -> None:
    whole, torn = to_line(Ended("interrupted")), to_line(Ended("finished"))
    path = tmp_path / "spool"
    path.write_bytes(b"damaged\n" + whole + torn[:-1])
    behind = len(b"damaged\n" + whole)
    assert list(read_spool(path)) == [(Ended("interrupted"), behind)]
    path.write_bytes(b"damaged\n" + whole + torn)
    assert list(read_spool(path, behind)) == [(Ended("finished"), behind + len(torn))]

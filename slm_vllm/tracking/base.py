"""`BaseTracker`: the interface of a tracking service."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_vllm.config.schema import TrackingConfig
from slm_vllm.errors import SlmVllmError
from slm_vllm.tracking.events import Artifact, Ended, Event, Sample, Started


class TrackerError(SlmVllmError):
    """The service cannot be reached or refuses; what was not published is kept."""


class RejectedError(TrackerError):
    """The service said no: asking again does not help until someone corrects the settings."""


@dataclass(frozen=True, slots=True)
class Publication:
    """How the runs of a command are published.

    Attributes:
        tracker: Name of the tracker, None when nobody is told.
        environment: Of the publisher process; it may hold secrets.
        bound: Seconds the end of the command may wait for it.
        note: What the user should know beforehand.
    """

    tracker: str | None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    bound: float = 0.0
    note: str = ""


NOBODY = Publication(None)


class BaseTracker(ABC):
    """Publishes the events of one run. Lives in the publisher process, never in the run's.

    Every call ends within seconds, or raises `TrackerError` and is repeated later with the same
    arguments. `memory` is a JSON object of the tracker's own: the publisher writes it to the disk
    whenever `remember` is called and hands it back after a restart.

    Args:
        folder: The run folder.
        memory: What an earlier publisher of this run remembered.
        remember: Writes `memory` to the disk.
    """

    title = "The tracker"
    """What users call it."""
    is_live = True
    """Whether it is told while the run goes on. If not, it is told everything at the run's end, and
    from the beginning where that had to be tried again."""

    @classmethod
    def arrange(cls, config: TrackingConfig, *, asked: bool) -> Publication:
        """Decides how runs are published; called in the process of the run.

        Args:
            config: What is configured.
            asked: Whether this tracker was named; if not it may say that nobody is told.

        Raises:
            SlmVllmError: It was named and cannot be used.
        """
        return Publication(config.tracker, dict(os.environ), config.close_timeout)

    @classmethod
    def connect(cls) -> tuple[str, MakeTracker]:
        """Makes what all runs of a publisher share, and is called until that succeeds.

        Returns:
            The name of the place, as what was published elsewhere is published again here; and
            what makes the tracker of a run.

        Raises:
            TrackerError: The service cannot be reached.
        """
        return cls.__name__, cls

    @classmethod
    def undelivered(cls, folder: Path, problem: str) -> str:
        """What the user is told of a run that is not published as a whole."""
        return (
            f"{cls.title}: not everything is published ({problem}). The run's command, given "
            "again, publishes the rest"
        )

    def __init__(self, folder: Path, memory: dict[str, Any], remember: Any) -> None:
        self.folder, self.memory, self.remember = folder, memory, remember

    @abstractmethod
    def start(self, event: Started) -> None:
        """Makes the run known to the service, or takes up the one made earlier."""

    @abstractmethod
    def report(self, events: Sequence[Event], *, uncertain: bool) -> None:
        """Publishes scalars, single values, tables, figures and texts.

        Args:
            events: In the order they were said.
            uncertain: An earlier attempt at these very events may have arrived, in part or
                whole: ask the service before saying anything twice.
        """

    @abstractmethod
    def attach(self, file: Sample | Artifact) -> None:
        """Publishes a page or a file of the run folder and checks that it arrived.

        May be called again for a file that did arrive.
        """

    @abstractmethod
    def end(self, event: Ended) -> None:
        """Says how the run ended."""

    @abstractmethod
    def missing(self, events: Sequence[Event], texts: int, phase: str | None) -> list[str]:
        """Reads back what the service has and names what it lacks.

        Args:
            events: All that the run said, its console texts left out.
            texts: How many of those there were.
            phase: How the run ended.
        """

    @property
    def url(self) -> str | None:
        """Where a browser shows the run."""
        return None


MakeTracker = Callable[[Path, dict[str, Any], Callable[[], None]], BaseTracker]

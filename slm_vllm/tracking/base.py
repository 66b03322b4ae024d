"""What a tracking service has to do; the publisher does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_vllm.errors import SlmVllmError
from slm_vllm.tracking.events import Artifact, Ended, Event, Sample, Started


class TrackerError(SlmVllmError):
    """The service cannot be reached or refuses; what was not published is kept."""


class RejectedError(TrackerError):
    """The service said no: asking again does not help until someone mends the settings."""


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

    name = ""

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

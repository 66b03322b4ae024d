"""The tracker for runs that tell nobody."""

from __future__ import annotations

from collections.abc import Sequence

from slm_vllm.tracking.base import BaseTracker
from slm_vllm.tracking.events import Artifact, Ended, Event, Sample, Started


class NoTracker(BaseTracker):
    """Takes everything and does nothing."""

    name = "none"

    def start(self, event: Started) -> None:
        """Does nothing."""

    def report(self, events: Sequence[Event], *, uncertain: bool) -> None:
        """Does nothing."""

    def attach(self, file: Sample | Artifact) -> None:
        """Does nothing."""

    def end(self, event: Ended) -> None:
        """Does nothing."""

    def missing(self, events: Sequence[Event], texts: int, phase: str | None) -> list[str]:
        """Nothing was promised, nothing is missing."""
        return []

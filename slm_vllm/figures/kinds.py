"""The content of a figure, drawn by `reporting` (SVG, PNG) and `tracking` (plotly).

Colours are names, the numbers of a palette that each of them has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slm_vllm.scoring.intervals import MeanEstimate

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Mean token recall of the rows of one bin."""

    label: str
    estimate: MeanEstimate


@dataclass(frozen=True, slots=True)
class Series:
    """One run in a figure of groups."""

    label: str
    groups: Sequence[Group]
    colour: str = "series-0"
    shape: int = 0


@dataclass(frozen=True, slots=True)
class GroupMeans:
    """Mean token recall by group, with intervals.

    Attributes:
        key: Fit for a file name.
        title: What it shows.
        note: How to read it.
        unit: What the groups are.
        order: Labels of all groups in order; those without rows are left out.
        series: The runs.
    """

    key: str
    title: str
    note: str
    unit: str
    order: Sequence[str]
    series: Sequence[Series]

    @property
    def columns(self) -> tuple[str, ...]:
        """Head of the table of its numbers."""
        return ("run", self.unit, "mean", "95 % low", "95 % high", "n")

    @property
    def rows(self) -> Rows:
        """Its numbers."""
        return tuple(
            (
                one.label,
                group.label,
                *(f"{end:.3f}" for end in (found.mean, found.low, found.high)),
                str(found.n),
            )
            for one in self.series
            for group in one.groups
            for found in (group.estimate,)
        )


@dataclass(frozen=True, slots=True)
class Track:
    """One value over time: (seconds, value)."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str = "series-0"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Strip:
    """What one run used; `phases` are names with their first and last second, in order."""

    label: str
    tracks: Sequence[Track]
    phases: Sequence[tuple[str, float, float]]


@dataclass(frozen=True, slots=True)
class OverTime:
    """Values over the seconds of runs, a strip for each run.

    Attributes:
        key: Fit for a file name.
        title: What it shows.
        note: How to read it.
        what: What the values are of.
        unit: Of the values.
        strips: One for each run.
    """

    key: str
    title: str
    note: str
    what: str
    unit: str
    strips: Sequence[Strip]

    @property
    def columns(self) -> tuple[str, ...]:
        """Head of the table of its numbers."""
        return ("run", f"{self.what} of", "samples", f"highest ({self.unit})")

    @property
    def rows(self) -> Rows:
        """Its numbers."""
        return tuple(
            (strip.label, t.label, str(len(t.points)), f"{max(y for _, y in t.points):.2f}")
            for strip in self.strips
            for t in strip.tracks
        )

"""Events of a run for trackers, each one line of JSON in the spool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins, or goes on after an interruption.

    Attributes:
        name: Name of the run.
        project: Project it belongs to.
        task_type: "testing" or "inference".
        tags: Model, dataset, mode, retriever.
        parameters: Settings by section, flat inside a section.
        configuration: The resolved configuration as YAML.
        source: Command, git commit and package versions, as far as known.
    """

    kind: ClassVar[str] = "started"
    name: str
    project: str
    task_type: str
    tags: Sequence[str]
    parameters: Mapping[str, Mapping[str, str]]
    configuration: str
    source: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scalars:
    """Values at one point of the run.

    Attributes:
        step: Examples done.
        values: By title of the graph, then by series.
    """

    kind: ClassVar[str] = "scalars"
    step: int
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class SingleValues:
    """Final figures by name."""

    kind: ClassVar[str] = "single_values"
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; `rows` are as long as `header`."""

    kind: ClassVar[str] = "table"
    title: str
    series: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot in plotly's JSON layout (`data`, `layout`)."""

    kind: ClassVar[str] = "figure"
    title: str
    series: str
    plotly: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """Console output.

    Attributes:
        text: One or more lines.
        time: Milliseconds since 1970, different for each text of a run.
    """

    kind: ClassVar[str] = "text"
    text: str
    time: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A page to look at beside the figures.

    Attributes:
        title: Title of its group.
        series: Its name in the group.
        step: Examples done.
        html: The page.
    """

    kind: ClassVar[str] = "sample"
    title: str
    series: str
    step: int
    html: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of the run folder; `path` is relative to it."""

    kind: ClassVar[str] = "artifact"
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The run ends: "finished", "interrupted", "failed", or "died" if it never said so."""

    kind: ClassVar[str] = "ended"
    phase: str


Event = Started | Scalars | SingleValues | Table | Figure | Text | Sample | Artifact | Ended
_KINDS: dict[str, type[Any]] = {
    event.kind: event
    for event in (Started, Scalars, SingleValues, Table, Figure, Text, Sample, Artifact, Ended)
}
# `json.dumps` makes a new encoder at each call that does not use its defaults.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def to_line(event: Event) -> bytes:
    """The event as one line of JSON."""
    return (_encode({"kind": event.kind, **asdict(event)}) + "\n").encode("utf-8", "replace")


def from_line(line: bytes) -> Event:
    """The event of a line.

    Raises:
        ValueError: The line is damaged, or of a later version.
    """
    content = json.loads(line)
    try:
        event: Event = _KINDS[content.pop("kind")](**content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {error}") from None
    return event


def identity(event: Event) -> str | None:
    """What the event replaces when it is said again; None for events that are all kept."""
    if isinstance(event, Scalars):
        return f"scalars {event.step}"
    if isinstance(event, (Table, Figure)):
        return f"plot {event.title} {event.series}"
    if isinstance(event, Sample):
        return f"sample {event.title} {event.series} {event.step}"
    return event.kind if isinstance(event, SingleValues) else None

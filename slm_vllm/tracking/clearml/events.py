"""The project's events in ClearML's own form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from slm_vllm.tracking.events import Event, Figure, Scalars, SingleValues, Started, Table, Text
from slm_vllm.tracking.plots import table_figure

SCALAR, PLOT, LOG, IMAGE = "training_stats_scalar", "plot", "log", "training_debug_image"
SINGLE_VALUE_METRIC, SINGLE_VALUE_STEP = "Summary", -(1 << 31)


def api_events(task: str, events: Iterable[Event], now: int) -> Iterator[dict[str, Any]]:
    """What `events.add_batch` takes.

    Args:
        task: Its id.
        events: Scalars, single values, tables, figures and texts.
        now: Milliseconds since 1970.
    """
    for event in events:
        if isinstance(event, Scalars):
            for metric, series in event.values.items():
                for variant, value in series.items():
                    yield _scalar(task, metric, variant, event.step, value, now)
        elif isinstance(event, SingleValues):
            for name, value in event.values.items():
                yield _scalar(task, SINGLE_VALUE_METRIC, name, SINGLE_VALUE_STEP, value, now)
        elif isinstance(event, (Table, Figure)):
            figure = table_figure(event) if isinstance(event, Table) else event.plotly
            plot = {"type": PLOT, "plot_str": json.dumps(figure)}
            yield {**plot, **_place(task, event.title, event.series, 0, now)}
        elif isinstance(event, Text):
            yield {
                "type": LOG,
                "task": task,
                "level": "INFO",
                "worker": "slm-vllm",
                "msg": event.text,
                "timestamp": event.time,
            }


def image_event(
    task: str, metric: str, variant: str, step: int, url: str, now: int
) -> dict[str, Any]:
    """A page among the debug samples."""
    return {"type": IMAGE, "url": url, **_place(task, metric, variant, step, now)}


def event_key(event: dict[str, Any]) -> tuple[Any, ...]:
    """What tells two events of one task apart; a log line is told by its time."""
    if event["type"] == LOG:
        return (LOG, int(event["timestamp"]))
    return (event["type"], event["metric"], event["variant"], int(event.get("iter") or 0))


def same_content(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two events with one key say the same."""
    names = {SCALAR: "value", PLOT: "plot_str", IMAGE: "url"}
    name = names.get(one["type"])
    return name is None or bool(one.get(name) == other.get(name))


def task_fields(event: Started) -> dict[str, Any]:
    """What `tasks.edit` takes."""
    hyperparams = {
        section: {
            name: {"section": section, "name": name, "value": value, "type": ""}
            for name, value in values.items()
        }
        for section, values in event.parameters.items()
        if values
    }
    configuration = {
        "name": "config.yaml",
        "value": event.configuration,
        "type": "yaml",
        "description": "the resolved configuration",
    }
    git = event.source.get("git") or {}
    packages = event.source.get("packages") or {}
    command = [str(word) for word in event.source.get("command") or []]
    return {
        "tags": list(event.tags),
        "hyperparams": hyperparams,
        "configuration": {"config.yaml": configuration},
        "script": {
            "binary": f"python{event.source.get('python') or ''}",
            "entry_point": " ".join(["slm-vllm", *command[1:]]) if command else "slm-vllm",
            "version_num": git.get("commit") or "",
            "requirements": {"pip": "".join(f"{k}=={v}\n" for k, v in sorted(packages.items()))},
        },
        "runtime": {name: str(value) for name, value in (event.source.get("device") or {}).items()},
    }


def _scalar(
    task: str, metric: str, variant: str, step: int, value: float, now: int
) -> dict[str, Any]:
    return {"type": SCALAR, "value": value, **_place(task, metric, variant, step, now)}


def _place(task: str, metric: str, variant: str, step: int, now: int) -> dict[str, Any]:
    return {"task": task, "metric": metric, "variant": variant, "iter": step, "timestamp": now}

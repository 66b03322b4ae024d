"""Figures in plotly's JSON layout, as trackers take them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

from slm_vllm.figures.kinds import GroupMeans, OverTime, Series

# A phase of a smaller share of the time is too narrow for its name.
_LEAST_NAMED = 0.03


@singledispatch
def to_plotly(figure: object) -> dict[str, Any]:
    """A figure as `data` and `layout`."""
    raise TypeError(f"no plotly form of {type(figure).__name__}")


@to_plotly.register
def _(figure: GroupMeans) -> dict[str, Any]:
    present = {group.label for series in figure.series for group in series.groups}
    shown = layout(figure.title, figure.unit, "token recall")
    shown["xaxis"] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [label for label in figure.order if label in present],
    }
    # Room for a marker at 1.
    shown["yaxis"]["range"] = [0, 1.05]
    return {"data": [_points(series) for series in figure.series], "layout": shown}


def _points(series: Series) -> dict[str, Any]:
    found = [group.estimate for group in series.groups]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": series.label,
        "x": [group.label for group in series.groups],
        "y": [round(one.mean, 6) for one in found],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [round(one.high - one.mean, 6) for one in found],
            "arrayminus": [round(one.mean - one.low, 6) for one in found],
        },
        "text": [f"n={one.n}" for one in found],
    }


@to_plotly.register
def _(figure: OverTime) -> dict[str, Any]:
    """Of one run: its phases are shaded behind its lines."""
    (strip,) = figure.strips
    lines = [
        line(track.label, *zip(*track.points, strict=True), dashed=track.dashed)
        for track in strip.tracks
    ]
    shown = layout(figure.title, "seconds", figure.unit)
    seconds = max((last for *_, last in strip.phases), default=0.0)
    shown["shapes"] = [
        {
            "type": "rect", "xref": "x", "yref": "paper", "layer": "below", "line": {"width": 0},
            "x0": first, "x1": last, "y0": 0, "y1": 1,
            "fillcolor": "gray", "opacity": 0.05 if i % 2 else 0.16,
        }
        for i, (_, first, last) in enumerate(strip.phases)
    ]  # fmt: skip
    shown["annotations"] = [
        {
            "text": name, "x": first, "y": 1, "xref": "x", "yref": "paper", "showarrow": False,
            "xanchor": "left", "yanchor": "top", "textangle": -90, "font": {"size": 10},
        }
        for name, first, last in strip.phases
        if last - first >= _LEAST_NAMED * (seconds or 1.0)
    ]  # fmt: skip
    return {"data": lines, "layout": shown}


def line(
    name: str, x: Sequence[float], y: Sequence[float | None], *, dashed: bool = False
) -> dict[str, Any]:
    """One line."""
    made = {"type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": list(y)}
    return {**made, "line": {"dash": "dash"}} if dashed else made


def layout(title: str, x: str, y: str) -> dict[str, Any]:
    """Titles of a figure and its axes."""
    return {
        "title": {"text": title},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
    }

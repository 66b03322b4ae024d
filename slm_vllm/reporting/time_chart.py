"""Values over the seconds of runs, a strip for each run with its phases."""

from __future__ import annotations

import math
from collections.abc import Sequence

from slm_vllm.figures.kinds import OverTime, Strip
from slm_vllm.reporting.axes import Axis, number
from slm_vllm.reporting.charts import SMALL, WIDTH, horizontal_grid
from slm_vllm.reporting.drawing import Area, Drawing, Label, Line, Shape, shortened, text_width

_LEFT = 44.0
_ALONE, _STRIP = 170.0, 64.0
_NAME_ROWS = (7.0, 17.0)


def time_chart(figure: OverTime) -> Drawing:
    """The strips under each other, on the same axes."""
    strips, unit = figure.strips, figure.unit
    points = [point for strip in strips for track in strip.tracks for point in track.points]
    x_axis = Axis(0.0, max(1e-3, *(x for x, _ in points)), _LEFT, WIDTH - 24)
    # Room for the names of the phases above the highest line.
    highest = max(y for _, y in points) * 1.5 or 1.0
    height = _ALONE if len(strips) == 1 else _STRIP
    shapes: list[Shape] = []
    bottom = 0.0
    for strip in strips:
        top = bottom + (26.0 if not bottom else 34.0)
        bottom = top + height
        y_axis = Axis(0.0, highest, bottom, top)
        shapes.append(Label(_LEFT - 7, top - 14, unit, "end", size=SMALL))
        shapes += _names(strip, top - 14)
        shapes += horizontal_grid(_LEFT, x_axis.end, y_axis, 5 if len(strips) == 1 else 2)
        shapes += _bands(strip.phases, x_axis, y_axis)
        for track in strip.tracks:
            line = tuple((x_axis.at(x), y_axis.at(y)) for x, y in track.points)
            shapes.append(Line(line, track.colour, 2.0, track.dashed, track.label))
    for tick in x_axis.ticks():
        x = x_axis.at(tick)
        shapes.append(Line(((x, bottom), (x, bottom + 4)), "muted"))
        shapes.append(Label(x, bottom + 14, number(tick), "middle", size=SMALL))
    shapes.append(Label((x_axis.begin + x_axis.end) / 2, bottom + 34, "seconds", "middle"))
    return Drawing(WIDTH, bottom + 46, tuple(shapes), figure.title, _spoken(strips, unit))


def _spoken(strips: Sequence[Strip], unit: str) -> str:
    peaks = (
        f"{strip.label} {track.label} at most {number(max(y for _, y in track.points))} {unit}"
        for strip in strips
        for track in strip.tracks
    )
    return "; ".join(peaks)


def _names(strip: Strip, y: float) -> list[Shape]:
    """The run, then a line and a name for each of its values."""
    room = 60.0 + sum(text_width(track.label, SMALL) for track in strip.tracks)
    name = shortened(strip.label, WIDTH - _LEFT - room)
    shapes: list[Shape] = [Label(_LEFT, y, name, colour="ink")]
    x = _LEFT + text_width(name) + 8.0
    for track in strip.tracks:
        shapes.append(Line(((x, y), (x + 14, y)), track.colour, 2.5, track.dashed))
        shapes.append(Label(x + 18, y, track.label, size=SMALL))
        x += 28.0 + text_width(track.label, SMALL)
    return shapes


def _bands(phases: Sequence[tuple[str, float, float]], x_axis: Axis, y_axis: Axis) -> list[Shape]:
    """The phases as shades; names stand in two rows, and are left out where neither has room."""
    shapes: list[Shape] = []
    taken = dict.fromkeys(_NAME_ROWS, -math.inf)
    last_label = ""
    for i, (name, first, last) in enumerate(phases):
        left, right = x_axis.at(first), x_axis.at(last)
        box = ((left, y_axis.begin), (left, y_axis.end), (right, y_axis.end), (right, y_axis.begin))
        shapes.append(Area(box, "muted", 0.16 if i % 2 == 0 else 0.05))
        row = next((row for row, until in taken.items() if left >= until), None)
        if right - left > 14 and row is not None and name != last_label:
            last_label = name
            shapes.append(Label(left + 3, y_axis.end + row, name, size=10))
            taken[row] = left + 6 + text_width(name, 10)
    return shapes

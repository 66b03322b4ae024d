"""The kinds of charts in a report, laid out as drawings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slm_vllm.figures.kinds import GroupMeans, Series
from slm_vllm.reporting.axes import Axis, axis_for, number, share_axis
from slm_vllm.reporting.drawing import (
    Drawing,
    Label,
    Line,
    Marker,
    Point,
    Shape,
    shortened,
    text_width,
)

WIDTH = 460.0
_PLOT_HEIGHT = 250.0
SMALL = 11.0
# Of names that lack room, in degrees.
_RISE = 60.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval, for one run; `heading` groups those that follow one another."""

    heading: str
    label: str
    mean: float
    low: float
    high: float
    n: int
    colour: str
    shape: int


@dataclass(frozen=True, slots=True)
class Spot:
    """A run as a point: `x` is what it costs or gives, `y` how good it is.

    Its colour stands for the condition, its shape for the model. A bound is no rival of the others.
    """

    model: str
    condition: str
    label: str
    x: float
    y: float
    low: float
    high: float
    colour: str
    shape: int
    is_bound: bool = False


def interval_chart(title: str, intervals: Sequence[Interval]) -> Drawing:
    """Means as points on their intervals, one line for each run."""
    longest = max(text_width(item.label) for item in intervals)
    left = min(210.0, max(70.0, longest + 12.0))
    axis = share_axis(left, WIDTH - 62.0)
    shapes: list[Shape] = []
    y = 14.0
    heading = None
    for item in intervals:
        if item.heading != heading:
            heading = item.heading
            text = shortened(heading, WIDTH - 10)
            shapes.append(Label(0, y, text, colour="ink", bold=True))
            y += 21.0
        hint = f"{item.mean:.3f} [{item.low:.3f}, {item.high:.3f}], n = {item.n}"
        ends = ((axis.at(item.low), y), (axis.at(item.high), y))
        shapes += [
            Label(left - 10, y, shortened(item.label, left - 12), "end", "ink"),
            Line(ends, item.colour, 2.5, title=f"{item.label}: {hint}"),
            Marker(axis.at(item.mean), y, item.colour, item.shape, f"{item.label}: {hint}"),
            Label(WIDTH, y, f"{item.mean:.3f}", "end", "ink"),
        ]
        y += 23.0
    grid = _vertical_grid(axis, 2.0, y - 6.0)
    shapes.append(Label((axis.begin + axis.end) / 2, y + 24, "token recall", "middle"))
    spoken = "; ".join(f"{item.heading} {item.label} {item.mean:.3f}" for item in intervals)
    return Drawing(WIDTH, y + 34, (*grid, *shapes), title, spoken)


def _vertical_grid(axis: Axis, top: float, bottom: float) -> list[Shape]:
    shapes: list[Shape] = []
    for tick in axis.ticks(5):
        x = axis.at(tick)
        shapes.append(Line(((x, top), (x, bottom)), "grid"))
        shapes.append(Label(x, bottom + 12, number(tick), "middle", size=SMALL))
    return shapes


def pareto_front(spots: Sequence[Spot], *, less_is_better: bool) -> list[Spot]:
    """The spots that no other one beats, from the cheapest to the best; bounds are left out.

    One spot beats another when it is at least as good in both x and y and better in one.
    """
    sign = -1.0 if less_is_better else 1.0
    rivals = [spot for spot in spots if not spot.is_bound]
    front = [
        spot
        for spot in rivals
        if not any(
            sign * other.x >= sign * spot.x
            and other.y >= spot.y
            and (other.x, other.y) != (spot.x, spot.y)
            for other in rivals
        )
    ]
    return sorted(front, key=lambda spot: (spot.y, -sign * spot.x))


def pareto_chart(title: str, spots: Sequence[Spot], unit: str, *, less_is_better: bool) -> Drawing:
    """Token recall against what a run costs or gives, with the line of those nobody beats."""
    legend, begin = _legend(_spot_names(spots), 44.0)
    x_axis = axis_for([spot.x for spot in spots], 44.0, WIDTH - 14.0)
    top = max(min(1.0, max(spot.high for spot in spots) * 1.15), 0.1)
    y_axis = Axis(0.0, top, begin + _PLOT_HEIGHT, begin + 16.0)
    shapes = [*legend, *_frame(x_axis, y_axis, unit)]
    front = pareto_front(spots, less_is_better=less_is_better)
    if front:
        steps = _stairs([(x_axis.at(spot.x), y_axis.at(spot.y)) for spot in front])
        hint = "not beaten in both by any run"
        shapes.append(Line(steps, "muted", 1.5, dashed=True, title=hint))
    for spot in spots:
        x = x_axis.at(spot.x)
        ends = ((x, y_axis.at(spot.low)), (x, y_axis.at(spot.high)))
        hint = f"{spot.label}: token recall {spot.y:.3f}, {number(spot.x)} {unit}"
        shapes.append(Line(ends, spot.colour, 1.5, title=hint))
        mark = Marker(x, y_axis.at(spot.y), spot.colour, spot.shape, hint, 5.5, spot.is_bound)
        shapes.append(mark)
    best = ", ".join(spot.label for spot in front)
    spoken = f"Not beaten in both by any run: {best}"
    return Drawing(WIDTH, y_axis.begin + 46, tuple(shapes), title, spoken)


def _stairs(points: Sequence[Point]) -> tuple[Point, ...]:
    """Steps through the points, each as good as the run that it belongs to and no better."""
    steps = list(points[:1])
    for (_, before), (x, y) in itertools.pairwise(points):
        steps += [(x, before), (x, y)]
    return tuple(steps)


def _spot_names(spots: Sequence[Spot]) -> list[tuple[str, str, int | None]]:
    """The legend: a colour for each condition and, where there are several, models' shapes."""
    models = {spot.model: spot.shape for spot in spots}
    sign = None if len(models) > 1 else spots[0].shape
    entries: list[tuple[str, str, int | None]] = [
        (condition, colour, sign)
        for condition, colour in {spot.condition: spot.colour for spot in spots}.items()
    ]
    if len(models) > 1:
        entries += [(model, "ink", shape) for model, shape in models.items()]
    return entries


def _frame(x_axis: Axis, y_axis: Axis, x_label: str) -> list[Shape]:
    """Grid, numbers and the name of the x axis; y is token recall."""
    shapes = horizontal_grid(x_axis.begin, x_axis.end, y_axis)
    for tick in x_axis.ticks():
        x = x_axis.at(tick)
        shapes.append(Line(((x, y_axis.begin), (x, y_axis.begin + 4)), "muted"))
        shapes.append(Label(x, y_axis.begin + 14, number(tick), "middle", size=SMALL))
    middle = (x_axis.begin + x_axis.end) / 2
    shapes.append(Label(middle, y_axis.begin + 34, x_label, "middle"))
    shapes.append(_y_name(y_axis))
    return shapes


def _y_name(y_axis: Axis) -> Label:
    return Label(0, y_axis.end - 15, "token recall", size=SMALL)


def horizontal_grid(left: float, right: float, y_axis: Axis, most: int = 5) -> list[Shape]:
    """Lines and numbers of the y axis."""
    shapes: list[Shape] = []
    for tick in y_axis.ticks(most):
        y = y_axis.at(tick)
        shapes.append(Line(((left, y), (right, y)), "muted" if tick == 0 else "grid"))
        shapes.append(Label(left - 7, y, number(tick), "end", size=SMALL))
    return shapes


def group_chart(figure: GroupMeans) -> Drawing:
    """Means with intervals by group, the runs side by side in each."""
    series = figure.series
    labels = {group.label for one in series for group in one.groups}
    present = [label for label in figure.order if label in labels]
    left = 40.0
    legend, begin = _legend([(s.label, s.colour, s.shape) for s in series], left)
    y_axis = share_axis(begin + _PLOT_HEIGHT - 14, begin + 22)
    shapes = [*legend, *horizontal_grid(left, WIDTH, y_axis), _y_name(y_axis)]
    room = (WIDTH - left) / len(present)
    step = min(16.0, room * 0.8 / len(series))
    middles = {name: left + room * (i + 0.5) for i, name in enumerate(present)}
    for name, middle in middles.items():
        for j, one in enumerate(series):
            x = middle + (j - (len(series) - 1) / 2) * step
            shapes += _group_mark(one, name, x, y_axis, radius=max(2.5, min(4.5, step * 0.45)))
    names, bottom = _group_names(series, middles, room, y_axis.begin)
    shapes += [*names, Label((left + WIDTH) / 2, bottom + 20, figure.unit, "middle")]
    spoken = "; ".join(
        f"{s.label}: " + ", ".join(f"{g.label} {g.estimate.mean:.3f}" for g in s.groups)
        for s in series
    )
    return Drawing(WIDTH, bottom + 30, tuple(shapes), figure.title, spoken)


def _group_names(
    series: Sequence[Series], middles: Mapping[str, float], room: float, top: float
) -> tuple[list[Shape], float]:
    """Names and sizes of the groups under the axis, rising where they lack room; and their end."""
    sizes = {}
    for name in middles:
        counts = [g.estimate.n for s in series for g in s.groups if g.label == name]
        low, high = min(counts), max(counts)
        sizes[name] = f"n={low}" if low == high else f"n={low}-{high}"
    if all(text_width(name, SMALL) <= room - 4 for name in middles):
        shapes: list[Shape] = []
        for name, x in middles.items():
            shapes.append(Label(x, top + 14, name, "middle", size=SMALL))
            shapes.append(Label(x, top + 28, sizes[name], "middle", size=9.5))
        return shapes, top + 28
    # As long as the first one has room for, at the left.
    longest = (next(iter(middles.values())) - 2) / math.cos(math.radians(_RISE))
    shown = {name: f"{name}, {size}" for name, size in sizes.items()}
    shown = {name: shortened(text, longest, SMALL) for name, text in shown.items()}
    depth = max(text_width(text, SMALL) for text in shown.values()) * math.sin(math.radians(_RISE))
    labels = [
        Label(x + 3, top + 10, shown[name], "end", size=SMALL, rise=_RISE)
        for name, x in middles.items()
    ]
    return list(labels), top + 10 + depth


def _group_mark(series: Series, name: str, x: float, y_axis: Axis, *, radius: float) -> list[Shape]:
    for group in series.groups:
        if group.label != name:
            continue
        found = group.estimate
        hint = (
            f"{series.label}, {name}: {found.mean:.3f} "
            f"[{found.low:.3f}, {found.high:.3f}], n = {found.n}"
        )
        middle = y_axis.at(found.mean)
        if found.n == 1:
            hint = f"{series.label}, {name}: {found.mean:.3f}, one question"
            return [Marker(x, middle, series.colour, series.shape, hint, radius, hollow=True)]
        ends = ((x, y_axis.at(found.low)), (x, y_axis.at(found.high)))
        mark = Marker(x, middle, series.colour, series.shape, hint, radius)
        return [Line(ends, series.colour, 2.0, title=hint), mark]
    return []


def _legend(
    entries: Sequence[tuple[str, str, int | None]], left: float
) -> tuple[list[Shape], float]:
    """The legend's shapes and where it ends; a shape of None is drawn as a line."""
    shapes: list[Shape] = []
    x, y = left, 10.0
    for label, colour, shape in entries:
        text = shortened(label, WIDTH - left - 30)
        width = 30.0 + text_width(text)
        if x > left and x + width > WIDTH:
            x, y = left, y + 18.0
        sign: Shape = (
            Line(((x, y), (x + 12, y)), colour, 2.5)
            if shape is None
            else Marker(x + 6, y, colour, shape)
        )
        shapes += [sign, Label(x + 17, y, text, colour="ink")]
        x += width
    return shapes, y + 14.0

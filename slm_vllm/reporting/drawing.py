"""A drawing as a few shapes, written as SVG or PNG.

Charts are laid out once, in shapes with named colours. The page gives the names to its style sheet,
so that drawings follow light and dark; files get the colours for white paper.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slm_vllm.errors import MissingExtraError
from slm_vllm.reporting.plain_text import visible

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

# Okabe and Ito's palette, a little darker: told apart with any kind of colour vision.
_SERIES_COLOURS = (
    "#0b69a3", "#d1550a", "#00805c", "#a8478a", "#8a6d00", "#3f9fd6", "#5b5b66", "#b3122d",
)  # fmt: skip
PAPER = {
    "ink": "#1b1f24",
    "muted": "#5c6570",
    "grid": "#dfe3e8",
    "paper": "#ffffff",
    **{f"series-{i}": colour for i, colour in enumerate(_SERIES_COLOURS)},
}
PAGE = {name: f"var(--{name})" for name in PAPER}

_FONT = "'DejaVu Sans', Verdana, Arial, sans-serif"
# Width of an average character in units of the font size; generous, so that labels fit.
_CHARACTER = 0.6
_PIXELS = 3  # of a PNG, for each unit


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; `title` is what a pointer that rests on it shows."""

    points: tuple[Point, ...]
    colour: str = "ink"
    width: float = 1.0
    dashed: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon."""

    points: tuple[Point, ...]
    colour: str
    opacity: float = 0.12


@dataclass(frozen=True, slots=True)
class Marker:
    """A value. `shape` counts through circle, square, diamond, triangle, and so on.

    A hollow one stands for a value that says little.
    """

    x: float
    y: float
    colour: str
    shape: int = 0
    title: str = ""
    radius: float = 4.5
    hollow: bool = False

    def outline(self) -> tuple[Point, ...]:
        """Corners of the shape; none for a circle."""
        corners, turn, scale = _POLYGONS[self.shape % len(_POLYGONS)]
        return tuple(
            (
                self.x + self.radius * scale * math.cos(math.tau * (turn + i / corners)),
                self.y + self.radius * scale * math.sin(math.tau * (turn + i / corners)),
            )
            for i in range(corners)
        )


# Corners, first angle in turns, size beside a circle of the same look.
_POLYGONS = ((0, 0.0, 1.0), (4, 0.125, 1.25), (4, 0.0, 1.35), (3, 0.75, 1.4), (3, 0.25, 1.4))


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text that begins, is centred or ends at (x, y), its middle height at y.

    `rise` turns it about that point, in degrees against the clock.
    """

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    colour: str = "muted"
    size: float = 12.0
    bold: bool = False
    rise: float = 0.0


Shape = Line | Area | Marker | Label


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a rectangle, the first one at the back; `title` and `description` are spoken."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    title: str
    description: str = ""


def text_width(text: str, size: float = 12.0) -> float:
    """About how wide a text is."""
    return len(text) * size * _CHARACTER


def shortened(text: str, width: float, size: float = 12.0) -> str:
    """The text, its middle left out where it is wider than `width`."""
    most = max(3, int(width / (size * _CHARACTER)))
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def to_svg(drawing: Drawing, colours: Mapping[str, str] = PAPER) -> str:
    """The drawing as one `<svg>` element.

    Args:
        drawing: What to write.
        colours: CSS colours by name: `PAPER` for a file, `PAGE` inside the report.
    """
    title, description = _text(drawing.title), _text(drawing.description)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_n(drawing.width)} {_n(drawing.height)}" '
        f'width="{_n(drawing.width)}" height="{_n(drawing.height)}" '
        f'font-family="{_FONT}" aria-label="{title}. {description}">'
    )
    # As a file it needs paper under it: viewers with a dark desktop would show black on black.
    if colours is PAPER:
        head += f'<rect width="100%" height="100%" fill="{colours["paper"]}"/>'
    return head + "".join(_svg_shape(shape, colours) for shape in drawing.shapes) + "</svg>"


def _svg_shape(shape: Shape, colours: Mapping[str, str]) -> str:
    colour = colours[shape.colour]
    if isinstance(shape, Line):
        dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
        return _titled(
            f'<polyline points="{_points(shape.points)}" fill="none" stroke="{colour}" '
            f'stroke-width="{_n(shape.width)}" stroke-linejoin="round"{dash}',
            "polyline",
            shape.title,
        )
    if isinstance(shape, Area):
        return (
            f'<polygon points="{_points(shape.points)}" fill="{colour}" '
            f'fill-opacity="{_n(shape.opacity)}"/>'
        )
    if isinstance(shape, Label):
        look = ' font-weight="600"' if shape.bold else ""
        if shape.rise:
            look += f' transform="rotate({_n(-shape.rise)} {_n(shape.x)} {_n(shape.y)})"'
        return (
            f'<text x="{_n(shape.x)}" y="{_n(shape.y)}" dy="0.35em" fill="{colour}" '
            f'font-size="{_n(shape.size)}" text-anchor="{shape.anchor}"{look}>'
            f"{_text(shape.text)}</text>"
        )
    paper = colours["paper"]
    inside, border, width = (paper, colour, "1.5") if shape.hollow else (colour, paper, "1")
    edge = f'fill="{inside}" stroke="{border}" stroke-width="{width}"'
    if outline := shape.outline():
        return _titled(f'<polygon points="{_points(outline)}" {edge}', "polygon", shape.title)
    circle = f'<circle cx="{_n(shape.x)}" cy="{_n(shape.y)}" r="{_n(shape.radius)}" {edge}'
    return _titled(circle, "circle", shape.title)


def _titled(opening: str, tag: str, title: str) -> str:
    return f"{opening}><title>{_text(title)}</title></{tag}>" if title else f"{opening}/>"


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return html.escape(visible(text))


def write_png(drawing: Drawing, path: Path) -> None:
    """Writes the drawing as PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # 72 points to the inch: one unit of the drawing is one point, so sizes carry over.
    figure = Figure(figsize=(drawing.width / 72, drawing.height / 72), facecolor=PAPER["paper"])
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    for layer, shape in enumerate(drawing.shapes):
        _paint(axes, shape, layer)
    figure.savefig(path, dpi=72 * _PIXELS, metadata={"Title": drawing.title})


def require_matplotlib() -> None:
    """Raises `MissingExtraError` where PNG files cannot be written."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib", "report", "Writing plots as PNG") from None


def _paint(axes: object, shape: Shape, layer: int) -> None:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Polygon

    assert isinstance(axes, Axes)
    colour = PAPER[shape.colour]
    if isinstance(shape, Label):
        axes.text(
            shape.x,
            shape.y,
            visible(shape.text),
            color=colour,
            fontsize=shape.size,
            fontweight="bold" if shape.bold else "normal",
            horizontalalignment={"start": "left", "middle": "center", "end": "right"}[shape.anchor],
            verticalalignment="center",
            rotation=shape.rise,
            rotation_mode="anchor",
            zorder=layer,
            parse_math=False,
        )
    elif isinstance(shape, Line):
        xs, ys = zip(*shape.points, strict=True)
        dash: Any = (0, (5 / shape.width, 4 / shape.width)) if shape.dashed else "-"
        axes.add_line(
            Line2D(xs, ys, color=colour, linewidth=shape.width, linestyle=dash, zorder=layer)
        )
    elif isinstance(shape, Area):
        axes.add_patch(
            Polygon(shape.points, color=colour, alpha=shape.opacity, linewidth=0, zorder=layer)
        )
    else:
        look: dict[str, Any] = {
            "facecolor": PAPER["paper"] if shape.hollow else colour,
            "edgecolor": colour if shape.hollow else PAPER["paper"],
            "linewidth": 1.5 if shape.hollow else 1,
            "zorder": layer,
        }
        outline = shape.outline()
        at = (shape.x, shape.y)
        axes.add_patch(Polygon(outline, **look) if outline else Circle(at, shape.radius, **look))

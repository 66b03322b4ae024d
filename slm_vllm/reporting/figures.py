"""The figures of a report: which charts it has, and the numbers in each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm_vllm.figures.breakdowns import BREAKDOWNS
from slm_vllm.figures.kinds import Group, GroupMeans, OverTime, Series
from slm_vllm.figures.usage import memory_over_time, memory_strip
from slm_vllm.reporting.axes import number
from slm_vllm.reporting.charts import (
    Interval,
    Spot,
    group_chart,
    interval_chart,
    pareto_chart,
    pareto_front,
)
from slm_vllm.reporting.context_role import role_of
from slm_vllm.reporting.drawing import Drawing, require_matplotlib, to_svg, write_png
from slm_vllm.reporting.run_view import RunView
from slm_vllm.reporting.time_chart import time_chart
from slm_vllm.scoring.intervals import MeanEstimate

# More runs than this in one chart of groups cannot be told apart.
_MOST_SERIES = 6


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its numbers.

    Attributes:
        key: Unique in the report, fit for a file name.
        title: What it shows.
        note: How to read it.
        drawing: The chart.
        columns: Head of its table.
        rows: The table.
    """

    key: str
    title: str
    note: str
    drawing: Drawing
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def build_figures(views: Sequence[RunView]) -> list[Figure]:
    """All figures of a report, by dataset; those there is no data for are left out."""
    figures: list[Figure] = []
    datasets = dict.fromkeys(view.dataset for view in views)
    for dataset in datasets:
        inside = [_named_within(view, views) for view in views if view.dataset == dataset]
        suffix = f" on {dataset}" if len(datasets) > 1 else ""
        for figure in _dataset_figures(inside):
            figures.append(
                replace(
                    figure, key=f"{_slug(dataset)}-{figure.key}", title=f"{figure.title}{suffix}"
                )
            )
    return figures


def write_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Writes each figure as SVG and PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in figures:
        svg, png = folder / f"{figure.key}.svg", folder / f"{figure.key}.png"
        svg.write_text(to_svg(figure.drawing) + "\n", encoding="utf-8")
        write_png(figure.drawing, png)
        written += [svg, png]
    return written


def _named_within(view: RunView, views: Sequence[RunView]) -> RunView:
    """The view with a label that leaves out the dataset, which the figure's title has."""
    several = len({view.model for view in views}) > 1 and view.condition != view.run.name
    return replace(view, label=f"{view.model} · {view.condition}" if several else view.condition)


def _dataset_figures(views: Sequence[RunView]) -> Iterator[Figure]:
    scored = [view for view in views if _recall(view)["mean"] is not None]
    if scored:
        yield _recall_figure(scored)
    yield from _pareto_figures(scored)
    for name, chunk in _chunked(_by_passages(scored)):
        yield _part(_drawn(_passages_figure([series for _, series in chunk])), name)
    for breakdown in BREAKDOWNS:
        known = [(view, breakdown.groups([view.run.predictions])) for view in scored]
        for name, chunk in _chunked([(view, groups) for view, groups in known if groups]):
            series = [Series(v.label, groups, v.colour, v.shape) for v, groups in chunk]
            yield _part(_drawn(breakdown.figure(series)), name)
    strips = [(view, memory_strip(view.run.memory, view.label, view.colour)) for view in views]
    for name, chunk in _chunked([(view, strip) for view, strip in strips if strip is not None]):
        named = [replace(strip, label=view.label) for view, strip in chunk]
        yield _part(_drawn(memory_over_time(named)), name)


def _by_passages(views: Sequence[RunView]) -> list[tuple[RunView, Series]]:
    """The searches that were run with several numbers of passages in the prompt."""
    found = []
    for model, mode in dict.fromkeys((view.model, view.mode) for view in views):
        runs: dict[int, list[RunView]] = {}
        for view in views:
            count = (view.run.config.get("retriever") or {}).get("top_k")
            searched = (view.model, view.mode) == (model, mode) and view.run.results.get(
                "retriever"
            )
            if searched and isinstance(count, int):
                runs.setdefault(count, []).append(view)
        # Two runs of one number differ in something else, and so may all of them.
        if len(runs) > 1 and all(len(same) == 1 for same in runs.values()):
            groups = [Group(str(count), _estimate(runs[count][0])) for count in sorted(runs)]
            first = runs[min(runs)][0]
            several = len({view.model for view in views}) > 1
            label = f"{model} · {mode}" if several else mode
            found.append((first, Series(label, groups, first.colour, first.shape)))
    return found


def _passages_figure(series: Sequence[Series]) -> GroupMeans:
    counts = {group.label for one in series for group in one.groups}
    return GroupMeans(
        "passages",
        "Token recall by passages in the prompt",
        "Runs that differ in retriever.top_k alone; 95 % bootstrap intervals.",
        "passages",
        sorted(counts, key=int),
        series,
    )


def _drawn(figure: GroupMeans | OverTime) -> Figure:
    drawing = group_chart(figure) if isinstance(figure, GroupMeans) else time_chart(figure)
    return Figure(figure.key, figure.title, figure.note, drawing, figure.columns, figure.rows)


def _recall_figure(views: Sequence[RunView]) -> Figure:
    intervals = [
        Interval(
            view.model, view.condition, *_ends(view), _recall(view)["n"], view.colour, view.shape
        )
        for view in views
    ]
    title = "Token recall by mode and model"
    return Figure(
        "recall",
        title,
        "Share of the expected answer's words in the prediction, with 95 % bootstrap intervals.",
        interval_chart(title, intervals),
        ("model", "mode", "mean", "95 % low", "95 % high", "n"),
        tuple(
            (i.heading, i.label, f"{i.mean:.3f}", f"{i.low:.3f}", f"{i.high:.3f}", str(i.n))
            for i in intervals
        ),
    )


def _pareto_figures(views: Sequence[RunView]) -> Iterator[Figure]:
    rates = {view.label: view.run.results["throughput"]["questions_per_second"] for view in views}
    memory, what = _peak_memory(views)
    note = "Dashed steps: what no run beats in both. Colour: mode; shape: model; hollow: a bound."
    for key, title, unit, values, less in (
        ("throughput", "Token recall against throughput", "questions/s", rates, False),
        ("memory", f"Token recall against {what}", f"{what}, GiB", memory, True),
    ):
        known = [view for view in views if values[view.label]]
        if len(known) < 2:
            continue
        spots = [
            Spot(
                view.model,
                view.condition,
                view.label,
                float(values[view.label] or 0.0),
                *_ends(view),
                view.colour,
                view.shape,
                role_of(view.run) == "bound",
            )
            for view in known
        ]
        front = pareto_front(spots, less_is_better=less)
        yield Figure(
            key,
            title,
            note,
            pareto_chart(title, spots, unit, less_is_better=less),
            ("run", unit, "token recall", "on the line"),
            tuple(
                (s.label, number(s.x), f"{s.y:.3f}", "yes" if s in front else "no") for s in spots
            ),
        )


def _peak_memory(views: Sequence[RunView]) -> tuple[dict[str, float | None], str]:
    """Peaks in GiB: of the GPU where all runs have one, else of the processes."""
    reports = {view.label: view.run.memory or {} for view in views}
    on_gpu = bool(reports) and all(report.get("peak_gpu") for report in reports.values())
    peaks = {
        label: report.get("peak_gpu") if on_gpu else report.get("peak_rss")
        for label, report in reports.items()
    }
    what = "peak GPU memory" if on_gpu else "peak memory"
    return {label: peak / 1024 if peak else None for label, peak in peaks.items()}, what


def _recall(view: RunView) -> Mapping[str, Any]:
    found: Mapping[str, Any] = view.run.results["metrics"]["token_recall"]
    return found


def _ends(view: RunView) -> tuple[float, float, float]:
    """Mean, low and high end."""
    recall = _recall(view)
    low, high = recall["ci95"]
    return recall["mean"], low, high


def _estimate(view: RunView) -> MeanEstimate:
    mean, low, high = _ends(view)
    recall = _recall(view)
    return MeanEstimate(mean, recall["stderr"] or 0.0, low, high, recall["n"])


def _chunked(
    known: Sequence[tuple[RunView, Any]],
) -> Iterator[tuple[str, Sequence[tuple[RunView, Any]]]]:
    """All at once where they fit in one chart, else each model for itself; named, "" for all.

    The chart of a model names it in its title, and its runs go without.
    """
    if len(known) <= _MOST_SERIES:
        if known:
            yield "", known
        return
    for model in dict.fromkeys(view.model for view, _ in known):
        own = [
            (replace(view, label=view.condition), figure)
            for view, figure in known
            if view.model == model
        ]
        parts = [own[i : i + _MOST_SERIES] for i in range(0, len(own), _MOST_SERIES)]
        for i, part in enumerate(parts, start=1):
            yield model if len(parts) == 1 else f"{model} ({i} of {len(parts)})", part


def _part(figure: Figure, name: str) -> Figure:
    if not name:
        return figure
    return replace(figure, key=f"{figure.key}-{_slug(name)}", title=f"{figure.title}: {name}")


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "dataset"

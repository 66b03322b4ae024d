"""The figures of the page that are seen first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slm_vllm.reporting.axes import number
from slm_vllm.reporting.pairing import mean_of, ranked
from slm_vllm.reporting.plain_text import escaped
from slm_vllm.reporting.run_tables import hit_name, rate_of
from slm_vllm.reporting.run_view import RunView
from slm_vllm.scoring.intervals import Mean
from slm_vllm.scoring.metrics import MAIN, METRICS


def headline(views: Sequence[RunView]) -> str:
    """The figures to see first: of the one run, or of the best one on each dataset."""
    if len(views) == 1:
        return _tiles(_run_tiles(views[0]))
    tiles = []
    for dataset in dict.fromkeys(view.dataset for view in views):
        if best := ranked([view for view in views if view.dataset == dataset]):
            first = best[0]
            name = first.condition if first.condition == first.run.name else _pair(first)
            tiles.append(
                (
                    f"highest on {dataset}",
                    f"{mean_of(first):.3f}",
                    f"{name}, {_interval(first.run.results['metrics'][MAIN])}",
                )
            )
    fastest = max(views, key=lambda view: rate_of(view) or 0.0)
    if rate_of(fastest):
        tiles.append(("fastest, questions/s", number(rate_of(fastest) or 0), fastest.label))
    counts = [view.run.results["counts"] for view in views]
    total = sum(count["total"] for count in counts)
    failed = sum(count["errors"] for count in counts)
    tiles.append(("predictions", f"{total:,}", f"{len(views)} runs, {failed:,} failed requests"))
    return _tiles(tiles)


def _pair(view: RunView) -> str:
    return f"{view.model} · {view.condition}"


def _run_tiles(view: RunView) -> list[tuple[str, str, str]]:
    results = view.run.results
    main = results["metrics"][MAIN]
    counts = results["counts"]
    tiles = [(METRICS[MAIN].label, _mean(main), _interval(main))]
    if (name := hit_name(results)) is not None:
        hit = results["retrieval"][name]
        tiles.append((name.replace("_", " "), _mean(hit), _interval(hit)))
    problems = f"{counts['errors']:,} failed, {counts['unscored']:,} unscored"
    tiles.append(("questions", f"{counts['total']:,}", problems))
    if rate_of(view):
        tokens = results["throughput"].get("completion_tokens_per_second")
        also = "" if tokens is None else f"{number(tokens)} new tokens/s"
        tiles.append(("questions/s", number(rate_of(view) or 0), also))
    return tiles


def _tiles(tiles: Iterable[tuple[str, str, str]]) -> str:
    return "".join(
        f'<div class="tile"><dt>{escaped(name)}</dt><dd><b>{escaped(value)}</b>'
        f"<span>{escaped(note)}</span></dd></div>"
        for name, value, note in tiles
    )


def _mean(metric: Mean) -> str:
    return "-" if metric["mean"] is None else f"{metric['mean']:.3f}"


def _interval(metric: Mean) -> str:
    low, high = metric["ci95"]
    if low is None or high is None:
        return "no row was scored"
    return f"95 % interval {low:.3f} to {high:.3f}, n = {metric['n']:,}"

"""The parts of the report that are there without a script: tables and figures, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from slm_vllm.reporting.axes import number
from slm_vllm.reporting.config_diff import Difference, config_differences, flat_settings
from slm_vllm.reporting.drawing import PAGE, to_svg
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.reporting.figures import Figure
from slm_vllm.reporting.html_table import table
from slm_vllm.reporting.pairing import mean_of, ranked
from slm_vllm.reporting.plain_text import escaped
from slm_vllm.reporting.run_view import RunView
from slm_vllm.rundir.settings import NOT_SET
from slm_vllm.scoring.metrics import MAIN, METRICS, in_tables

_COUNTS = {
    "errors": "failed requests",
    "unscored": "rows without a usable answer to score against",
    "rejected": "rows of the dataset rejected",
    "truncated": "prompts cut to fit the context",
    "unterminated_thinking": "answers that ended while thinking",
    "resumed": "answers kept from an earlier process",
    "from_cache": "answers of other runs, from the answer cache",
}


_UNITS = "; ".join(f"{metric.label}: {metric.unit}" for metric in in_tables())


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
                (f"highest on {dataset}", f"{mean_of(first):.3f}", f"{name}, {_interval(first)}")
            )
    fastest = max(views, key=lambda view: _rate(view) or 0.0)
    if _rate(fastest):
        tiles.append(("fastest, questions/s", number(_rate(fastest) or 0), fastest.label))
    counts = [view.run.results["counts"] for view in views]
    total = sum(count["total"] for count in counts)
    failed = sum(count["errors"] for count in counts)
    tiles.append(("predictions", f"{total:,}", f"{len(views)} runs, {failed:,} failed requests"))
    return _tiles(tiles)


def _pair(view: RunView) -> str:
    return f"{view.model} · {view.condition}"


def _run_tiles(view: RunView) -> list[tuple[str, str, str]]:
    results = view.run.results
    mean = mean_of(view)
    counts = results["counts"]
    tiles = [(METRICS[MAIN].label, "-" if mean is None else f"{mean:.3f}", _interval(view))]
    if (name := _hit_name(results)) is not None:
        hit = results["retrieval"][name]
        tiles.append((name.replace("_", " "), _unbroken(hit), f"n = {hit['n']:,}"))
    said = f"{counts['errors']:,} failed, {counts['unscored']:,} unscored"
    tiles.append(("questions", f"{counts['total']:,}", said))
    if _rate(view):
        tokens = results["throughput"].get("completion_tokens_per_second")
        also = "" if tokens is None else f"{number(tokens)} new tokens/s"
        tiles.append(("questions/s", number(_rate(view) or 0), also))
    return tiles


def _tiles(tiles: Iterable[tuple[str, str, str]]) -> str:
    return "".join(
        f'<div class="tile"><dt>{escaped(name)}</dt><dd><b>{escaped(value)}</b>'
        f"<span>{escaped(note)}</span></dd></div>"
        for name, value, note in tiles
    )


def results_section(views: Sequence[RunView]) -> str:
    """One line for each run, and what there is to say about counts."""
    columns = [
        "run", "model", "dataset", "mode", *(metric.label for metric in in_tables()), "hit", "n",
        "questions/s", "new tokens/s", "peak GiB",
    ]  # fmt: skip
    rows = [_result_row(view) for view in views]
    result = table(
        *_telling(columns, rows),
        caption=f"Means with 95 % bootstrap intervals ({_UNITS})",
        text_columns={"run", "model", "dataset", "mode"},
        tools="runs",
    )
    notes = [note for view in views for note in _notes(view)]
    if not notes:
        return result
    listed = "".join(f"<li>{escaped(note)}</li>" for note in notes)
    return f'{result}<ul class="notes">{listed}</ul>'


def _telling(
    columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """The table without the columns that are empty, or a name that all runs share."""
    kept = []
    for i, column in enumerate(columns):
        cells = {row[i] for row in rows}
        shared = column in ("model", "dataset") and len(rows) > 1 and len(cells) == 1
        if not cells <= {"", "-"} and not shared:
            kept.append(i)
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _result_row(view: RunView) -> list[str]:
    results, memory = view.run.results, view.run.memory or {}
    metrics = [results["metrics"].get(metric.name) for metric in in_tables()]
    hit = _hit_name(results)
    tokens = results["throughput"].get("completion_tokens_per_second")
    peak = memory.get("peak_gpu") or memory.get("peak_rss")
    return [
        view.run.name,
        view.model,
        view.dataset,
        view.mode,
        *(_unbroken(metric) for metric in metrics),
        "-" if hit is None else f"@{hit.partition('@')[2]} {_unbroken(results['retrieval'][hit])}",
        f"{results['counts']['scored']:,}",
        number(_rate(view) or 0) if _rate(view) else "-",
        "-" if tokens is None else number(tokens),
        "-" if peak is None else f"{peak / 1024:.2f}{' GPU' if memory.get('peak_gpu') else ''}",
    ]


def _hit_name(results: Mapping[str, Any]) -> str | None:
    """The hit rate nearest to what the prompt held: @3 where there is one, as in other tables."""
    names = [name for name in results.get("retrieval", {}) if name.startswith("answer_hit@")]
    return "answer_hit@3" if "answer_hit@3" in names else (names[-1] if names else None)


def _notes(view: RunView) -> list[str]:
    counts = view.run.results["counts"]
    said = [f"{counts[key]:,} {text}" for key, text in _COUNTS.items() if counts.get(key)]
    said += [view.run.note] if view.run.note else []
    return [f"{view.run.name}: {', '.join(said)}"] if said else []


def figures_section(figures: Sequence[Figure]) -> str:
    """Every figure with its numbers as a table under it."""
    return "".join(_figure(figure) for figure in figures)


def _figure(figure: Figure) -> str:
    data = table(
        figure.columns,
        figure.rows,
        caption=figure.title,
        text_columns={
            column for column in figure.columns if column in ("model", "mode", "run", "memory of")
        },
    )
    return (
        f'<figure id="{escaped(figure.key)}"><figcaption><h3>{escaped(figure.title)}</h3>'
        f"<p>{escaped(figure.note)}</p></figcaption>{to_svg(figure.drawing, PAGE)}"
        f"<details><summary>Numbers</summary>{data}</details></figure>"
    )


def configuration_section(views: Sequence[RunView]) -> str:
    """What differs between the runs, then what is the same in all."""
    runs = [view.run for view in views]
    flat = [flat_settings(run) for run in runs]
    different = config_differences(runs)
    parts = []
    if different:
        parts.append(
            table(
                ["key", *(run.name for run in runs)],
                [_difference_row(one, len(runs)) for one in different],
                caption="What differs",
                text_columns=None,
            )
        )
    elif len(views) > 1:
        parts.append("<p>All runs have the same settings.</p>")
    named = {one.key for one in different}
    # What is left may still differ where it had no effect: settings of a search that was not made.
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key not in named]
    same = [[key, " / ".join(dict.fromkeys(one.get(key, NOT_SET) for one in flat))] for key in keys]
    title = "Settings that are the same in all runs" if len(views) > 1 else "All settings"
    parts.append(
        f"<details><summary>{title} ({len(same)})</summary>"
        f"{table(['key', 'value'], same, caption=title, text_columns=None)}</details>"
    )
    return "".join(parts)


def _difference_row(difference: Difference, n_runs: int) -> list[str]:
    """The key, and the value of each run; a dash where it had no effect."""
    cells = ["-"] * n_runs
    for value, numbers in difference.values:
        for number_of_run in numbers:
            cells[number_of_run] = value
    return [difference.key, *cells]


def origin_section(views: Sequence[RunView]) -> str:
    """Models, data, machines and versions; a line for each fact, a column for each run."""
    facts = [_facts(view.run.manifest) for view in views]
    names = [name for name in facts[0] if any(one[name] != "-" for one in facts)]
    same = [name for name in names if len({one[name] for one in facts}) == 1]
    if len(same) == len(names):
        rows = [[name, facts[0][name]] for name in names]
        return table(
            ["fact", "all runs"],
            rows,
            caption="Models, data, machines and versions",
            text_columns=None,
        )
    rows = [[name, *(one[name] for one in facts)] for name in names]
    head = ["fact", *(view.run.name for view in views)]
    return table(head, rows, caption="Models, data, machines and versions", text_columns=None)


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    model, dataset = _inside(manifest, "model"), _inside(manifest, "dataset")
    engine, device = _inside(manifest, "engine"), _inside(manifest, "device")
    git = _inside(manifest, "git")
    commit = f"{git['commit']}{' (changed)' if git.get('dirty') else ''}" if git else None
    found = {
        "started": manifest.get("created"),
        "model": model.get("repo") or model.get("source"),
        "revision": model.get("revision"),
        "dataset file": dataset.get("path"),
        "dataset sha256": dataset.get("sha256"),
        "device": device.get("name"),
        "engine": " ".join(str(engine[key]) for key in ("name", "vllm") if engine.get(key)),
        "longest prompt and answer": engine.get("max_model_len"),
        "slm-vllm": manifest.get("slm_vllm"),
        "commit": commit,
        "Python": manifest.get("python"),
        "platform": manifest.get("platform"),
    }
    return {name: "-" if value in (None, "") else str(value) for name, value in found.items()}


def _inside(manifest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = manifest.get(key)
    return value if isinstance(value, Mapping) else {}


def _unbroken(metric: Mapping[str, Any] | None) -> str:
    """A mean whose interval stays in one line."""
    return metric_text(metric).replace(", ", ",\N{NO-BREAK SPACE}")


def _interval(view: RunView) -> str:
    metric = view.run.results["metrics"][MAIN]
    if metric["mean"] is None:
        return "no row was scored"
    low, high = metric["ci95"]
    return f"95 % interval {low:.3f} to {high:.3f}, n = {metric['n']:,}"


def _rate(view: RunView) -> float | None:
    rate: float | None = view.run.results["throughput"]["questions_per_second"]
    return rate

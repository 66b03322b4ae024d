"""Tables with a line for each run: results, search, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slm_vllm.reporting.axes import number
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.reporting.html_table import table
from slm_vllm.reporting.plain_text import escaped
from slm_vllm.reporting.run_view import RunView
from slm_vllm.rundir.remarks import without_context
from slm_vllm.scoring.metrics import PLAIN, Described, in_tables, judged_in_tables

_COUNTS = {
    "errors": "failed requests",
    "empty": "answers that say nothing",
    "unscored": "rows without a usable answer to score against",
    "rejected": "rows of the dataset rejected",
    "truncated": "prompts cut to fit the context",
    "unterminated_thinking": "answers that ended while thinking",
    "resumed": "answers kept from an earlier process",
    "from_cache": "answers of other runs, from the answer cache",
}


def results_table(views: Sequence[RunView]) -> str:
    """One line for each run, and what there is to say about counts."""
    shown = [*in_tables(), *judged_in_tables(view.run.results for view in views)]
    columns = [
        "run", "model", "dataset", "mode", *(metric.label for metric in shown), "hit", "n",
        "questions/s",
    ]  # fmt: skip
    rows = [_result_row(view, shown) for view in views]
    units = "; ".join(f"{metric.label}: {metric.unit}" for metric in shown)
    result = table(
        *_telling(columns, rows),
        caption=f"Means with 95 % bootstrap intervals ({units})",
        text_columns={"run", "model", "dataset", "mode"},
        tools="runs",
    )
    notes = _notes(views)
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


def _result_row(view: RunView, shown: Sequence[Described]) -> list[str]:
    results = view.run.results
    metrics = [results["metrics"].get(metric.name) for metric in shown]
    hit = hit_name(results)
    return [
        view.run.name,
        view.model,
        view.dataset,
        view.mode,
        *(_unbroken(metric) for metric in metrics),
        "-" if hit is None else f"@{hit.partition('@')[2]} {_unbroken(results['retrieval'][hit])}",
        f"{results['counts']['scored']:,}",
        number(rate_of(view) or 0) if rate_of(view) else "-",
    ]


def hit_name(results: Mapping[str, Any]) -> str | None:
    """The hit rate nearest to what the prompt held: @3 where there is one, as in other tables."""
    names = [name for name in results.get("retrieval", {}) if name.startswith("answer_hit@")]
    return "answer_hit@3" if "answer_hit@3" in names else (names[-1] if names else None)


def _notes(views: Sequence[RunView]) -> list[str]:
    """A line for each kind of rows that not all runs are free of, and what runs say themselves."""
    kinds = {
        text: [view.run.results["counts"].get(key) for view in views]
        for key, text in _COUNTS.items()
    }
    kinds["questions asked without context"] = [without_context(view.run.results) for view in views]
    counted = []
    for text, counts in kinds.items():
        found = zip(views, counts, strict=True)
        listed = ", ".join(f"{view.run.name} {count:,}" for view, count in found if count)
        counted += [f"{text}: {listed}"] if listed else []
    return counted + [f"{view.run.name}: {view.run.note}" for view in views if view.run.note]


def search_table(views: Sequence[RunView]) -> str:
    """How well each search found what is relevant; "" where nothing was searched."""
    found: dict[str, dict[str, str]] = {}
    for view in views:
        for name in view.run.results.get("retrieval") or {}:
            by, _, measure = name.rpartition("_")
            found.setdefault(by, {})[name] = measure
    return "".join(_search_table(views, by, measures) for by, measures in found.items())


def _search_table(views: Sequence[RunView], by: str, measures: Mapping[str, str]) -> str:
    """The figures of one kind of what is relevant, which is as much as a line has room for."""
    what = by.removeprefix(PLAIN)
    alone = "" if what == by else " without the stages after it"
    rows = [
        [view.run.name, *(_unbroken(found.get(name)) for name in measures)]
        for view in views
        if (found := view.run.results.get("retrieval"))
    ]
    return table(
        ["run", *measures.values()],
        rows,
        caption=f"What the search{alone} found within so many passages, judged by {what}",
        text_columns={"run"},
        tools=f"search-{by}",
    )


def cost_table(views: Sequence[RunView]) -> str:
    """Seconds, tokens and memory of each run."""
    phases = dict.fromkeys(phase for view in views for phase in _phases(view))
    columns = [
        "run", "seconds", *(f"{phase} s" for phase in phases), "prompt tokens", "new tokens",
        "tokens before searches", "tokens a question", "new tokens/s", "peak GPU GiB",
        "peak host GiB",
    ]  # fmt: skip
    rows = [[view.run.name, *_cost(view, list(phases))] for view in views]
    return table(
        *_telling(columns, rows),
        caption="Time, tokens and memory; runs of one command share its loading",
        text_columns={"run"},
        tools="cost",
    )


def _cost(view: RunView, phases: Sequence[str]) -> list[str]:
    results, memory = view.run.results, view.run.memory or {}
    counts = results["counts"]
    prompt, new = counts.get("prompt_tokens"), counts.get("completion_tokens")
    seconds = results.get("duration_seconds")
    each = None
    if prompt is not None and new is not None and counts["total"]:
        each = (prompt + new) / counts["total"]
    rate = results["throughput"].get("completion_tokens_per_second")
    took = _phases(view)
    return [
        "-" if seconds is None else f"{seconds:,.1f}",
        *(f"{took[phase]:,.1f}" if phase in took else "-" for phase in phases),
        "-" if prompt is None else f"{prompt:,}",
        "-" if new is None else f"{new:,}",
        f"{staged:,.0f}" if (staged := _staged_tokens(results)) else "-",
        "-" if each is None else number(each),
        "-" if rate is None else number(rate),
        _gib(memory.get("peak_gpu")),
        _gib(memory.get("peak_rss")),
    ]


def _staged_tokens(results: Mapping[str, Any]) -> float:
    """What the model read and wrote before passages were known."""
    stages = results.get("stages", {}).values()
    return float(sum(one["prompt_tokens"] + one["completion_tokens"] for one in stages))


def _gib(mib: float | None) -> str:
    return f"{mib / 1024:.2f}" if mib else "-"


def _phases(view: RunView) -> Mapping[str, float]:
    """Seconds by phase, those of less than a tenth left out."""
    timing = view.run.results.get("timing") or {}
    return {name: s for name, s in timing.items() if isinstance(s, (int, float)) and s >= 0.1}


def _unbroken(metric: Mapping[str, Any] | None) -> str:
    """A mean whose interval stays in one line."""
    return metric_text(metric).replace(", ", ",\N{NO-BREAK SPACE}")


def rate_of(view: RunView) -> float | None:
    """Questions a second, None where that was not measured."""
    rate: float | None = view.run.results["throughput"]["questions_per_second"]
    return rate

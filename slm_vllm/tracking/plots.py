"""The tables, plots and pages of a finished run."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.figures.breakdowns import BREAKDOWNS
from slm_vllm.figures.kinds import Series
from slm_vllm.figures.usage import memory_over_time, memory_strip
from slm_vllm.rundir.predictions import ROW_GROUP
from slm_vllm.tracking.events import Event, Figure, Sample, Table
from slm_vllm.tracking.plotly import layout, line, to_plotly

_PAGE_ROWS = 10
_CELL_LENGTH = 200


def metrics_table(results: Mapping[str, Any]) -> Table:
    """Every metric with its interval."""
    rows = [
        [name, value["mean"], value["ci95"][0], value["ci95"][1], value["stderr"], value["n"]]
        for group in ("metrics", "retrieval")
        for name, value in results.get(group, {}).items()
    ]
    header = ["metric", "mean", "95 % from", "95 % to", "standard error", "n"]
    return Table("Results", "metrics", header, rows)


def memory_figure(memory: Mapping[str, Any]) -> Iterator[Figure]:
    """Memory over time, where it was sampled."""
    if (strip := memory_strip(memory, "")) is not None:
        figure = memory_over_time([strip])
        yield Figure(figure.title, "memory", to_plotly(figure))


def progress_figure(points: Sequence[tuple[float, int, float | None]]) -> Figure:
    """How the run went on.

    Args:
        points: Seconds, examples done and running token recall.
    """
    seconds = [point[0] for point in points]
    done = line("examples done", seconds, [point[1] for point in points])
    recall = {**line("token recall", seconds, [point[2] for point in points]), "yaxis": "y2"}
    shown = layout("Progress", "seconds", "examples done")
    shown["yaxis2"] = {"title": {"text": "token recall"}, "overlaying": "y", "side": "right"}
    return Figure("Progress", "progress", {"data": [done, recall], "layout": shown})


def prediction_events(path: Path, limit: int) -> Iterator[Event]:
    """Token recall by properties of the question, and the first predictions.

    Args:
        path: `predictions.parquet`.
        limit: How many predictions.
    """
    scan = pl.scan_parquet(path, glob=False)
    for breakdown in BREAKDOWNS:
        # Passages are most of the file, which may be larger than memory.
        if "contexts" in breakdown.columns:
            continue
        groups = breakdown.groups(_in_parts(scan.select(*breakdown.columns, "token_recall")))
        if groups:
            figure = breakdown.figure([Series("token recall", groups)])
            yield Figure(figure.title, "token recall", to_plotly(figure))
    if limit:
        yield from _first_predictions(scan.head(limit).collect())


def _in_parts(scan: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """A large run's columns, a row group at a time."""
    rows = int(scan.select(pl.len()).collect().item())
    for start in range(0, rows, ROW_GROUP):
        yield scan.slice(start, ROW_GROUP).collect()


def _first_predictions(frame: pl.DataFrame) -> Iterator[Event]:
    rows = frame.select(
        "question_id", "question", "answers", "prediction", "token_recall", "contexts", "error"
    ).to_dicts()
    header = ["question", "answers", "prediction", "token recall"]
    cells = [
        [
            row["question"][:_CELL_LENGTH],
            " | ".join(row["answers"] or [])[:_CELL_LENGTH],
            (row["prediction"] or row["error"] or "")[:_CELL_LENGTH],
            _rounded(row["token_recall"]),
        ]
        for row in rows
    ]
    yield Table("First predictions", "predictions", header, cells)
    for start in range(0, len(rows), _PAGE_ROWS):
        part = rows[start : start + _PAGE_ROWS]
        name = f"{start + 1:03d} to {start + len(part):03d}"
        body = "".join(_entry(start + i, row) for i, row in enumerate(part, start=1))
        yield Sample("Predictions", name, 0, _PAGE.format(title=name, body=body))


def _entry(number: int, row: Mapping[str, Any]) -> str:
    answers = "".join(f"<li>{html.escape(answer)}</li>" for answer in row["answers"] or [])
    passages = "".join(
        f"<details><summary>{html.escape(passage['title'] or 'passage')}</summary>"
        f"<p>{html.escape(passage['text'] or '')}</p></details>"
        for passage in row["contexts"] or []
    )
    prediction = html.escape(row["prediction"] or "")
    error = f"<p class=e>{html.escape(row['error'])}</p>" if row["error"] else ""
    return (
        f"<section><h2>{number}. {html.escape(row['question'])}</h2>"
        f"<p><b>{prediction}</b> token recall {_rounded(row['token_recall'])}</p>{error}"
        f"<ul>{answers}</ul>{passages}<small>{html.escape(row['question_id'])}</small></section>"
    )


_PAGE = (
    "<!doctype html><meta charset=utf-8><title>Predictions {title}</title>"
    "<style>body{{font:14px sans-serif;max-width:60em;margin:1em}}h2{{font-size:1em}}"
    "small{{color:#777}}.e{{color:#b00}}</style>{body}"
)


def table_figure(table: Table) -> dict[str, Any]:
    """A table in plotly's layout."""
    columns = [list(column) for column in zip(*table.rows, strict=True)]
    return {
        "data": [
            {
                "type": "table",
                "header": {"values": list(table.header), "align": "left"},
                "cells": {"values": columns or [[] for _ in table.header], "align": "left"},
            }
        ],
        "layout": {"title": {"text": table.series}},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

"""The predictions as the page reads them: columns, each question and passage once, compressed.

Base64 has no character that means anything to HTML, so whatever a model wrote cannot end the
element that holds it.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from slm_vllm.figures.breakdowns import answer_rank, retrieval_hit
from slm_vllm.reporting.harm import CAUSES, Harm
from slm_vllm.reporting.run_view import RunView
from slm_vllm.scoring.answer_spans import Span, answer_spans
from slm_vllm.scoring.metrics import JUDGED, Described, in_tables

_COLUMNS = {
    "prediction": "prediction",
    "completion": "completion",
    "error": "error",
    "finish": "finish_reason",
    "promptTokens": "n_prompt_tokens",
    "newTokens": "n_completion_tokens",
    "truncated": "truncated",
}
# What makes a passage, and the answers of a row as one text.
_PASSAGE = ["passage_id", "title", "text"]
_JOINED = pl.col("answers").list.join("\x1f", ignore_nulls=True).fill_null("")
_WHOLE = pl.format("{} {}", pl.col("title").fill_null(""), pl.col("text").fill_null(""))


def questions_payload(views: Sequence[RunView], harms: Sequence[Harm]) -> dict[str, Any]:
    """Runs, questions and answers of the model.

    `questions` holds each question once: rows of different runs are the same question when
    dataset, id, text and answers are equal. `rows[i]` holds the columns of run i; its column `q`
    has the numbers of the questions. `harms` lists the rows whose answer context destroyed, by
    cause, with the positions of the two runs.
    """
    asked = [
        view.run.predictions.select(
            pl.lit(view.dataset).alias("dataset"),
            "question_id",
            "question",
            _JOINED.alias("joined"),
            pl.col("answers").fill_null([]),
            "metadata",
        )
        for view in views
    ]
    key = ["dataset", "question_id", "question", "joined"]
    distinct = pl.concat(asked).unique(key, keep="first", maintain_order=True)
    metrics: list[Described] = [*in_tables(), *_grades(views)]
    numbered = distinct.select(key).with_row_index("q")
    return {
        "runs": [
            {
                "name": view.run.name,
                "label": view.label,
                "mode": str(view.run.results["mode"]),
                "dataset": view.dataset,
                "colour": view.colour,
            }
            for view in views
        ],
        "harms": _harms(views, harms),
        "metrics": [{"name": metric.name, "label": metric.label} for metric in metrics],
        "questions": {
            "id": distinct["question_id"].to_list(),
            "text": distinct["question"].to_list(),
            "answers": distinct["answers"].to_list(),
            "metadata": distinct["metadata"].to_list(),
        },
        "rows": [
            {
                "q": frame.join(
                    numbered, on=key, how="left", maintain_order="left", nulls_equal=True
                )["q"].to_list(),
                **_run_columns(view.run.predictions, [metric.name for metric in metrics]),
            }
            for view, frame in zip(views, asked, strict=True)
        ],
    }


def _harms(views: Sequence[RunView], harms: Sequence[Harm]) -> list[dict[str, Any]]:
    place = {view.run.name: number for number, view in enumerate(views)}
    return [
        {
            "run": place[harm.run],
            "closedBook": place[harm.closed_book],
            "causes": [
                {
                    "name": cause,
                    "label": label,
                    "rows": [r for r, c in zip(harm.rows, harm.causes, strict=True) if c == cause],
                }
                for cause, label in CAUSES.items()
                if harm.counts.get(cause)
            ],
        }
        for harm in harms
    ]


def passages_payload(views: Sequence[RunView]) -> dict[str, Any]:
    """Each distinct passage once in `passages`; `rows[run][row]` lists the passages of a row.

    Each is [number, score], and where an answer stands in it [number, score, spans]: the places of
    answers in title, blank, text (see `answer_spans`).
    """
    exploded = pl.concat(
        view.run.predictions.select(
            pl.lit(number).alias("run"),
            pl.int_range(pl.len()).alias("row"),
            "answers",
            pl.col("contexts").alias("passage"),
        )
        .explode("passage", empty_as_null=True)
        .drop_nulls("passage")
        .unnest("passage")
        for number, view in enumerate(views)
    )
    distinct = exploded.select(_PASSAGE).unique(maintain_order=True).with_row_index("number")
    joined = exploded.join(
        distinct, on=_PASSAGE, how="left", maintain_order="left", nulls_equal=True
    )
    score = pl.when(pl.col("score").is_finite()).then(pl.col("score").round(3))
    rows: list[list[list[list[Any]]]] = [
        [[] for _ in range(view.run.predictions.height)] for view in views
    ]
    shown = joined.select("run", "row", "number", score).iter_rows()
    for (run, row, number, rounded), places in zip(shown, _places(joined), strict=True):
        rows[run][row].append([number, rounded] if places is None else [number, rounded, places])
    return {"passages": [list(row) for row in distinct.select(_PASSAGE).iter_rows()], "rows": rows}


def _places(shown: pl.DataFrame) -> list[list[Span] | None]:
    """Where answers stand in the passages that were shown.

    Runs that search alike show the same passages for a question: each pair is looked at once.
    """
    key = ["number", "joined"]
    asked = shown.select("number", _JOINED.alias("joined"), "answers", _WHOLE.alias("text"))
    pairs = asked.unique(key, keep="first", maintain_order=True).with_row_index("pair")
    spans = answer_spans(pairs["text"], pairs["answers"])
    found = asked.join(pairs.select(*key, "pair"), on=key, how="left", maintain_order="left")
    return [spans[pair] for pair in found["pair"]]


def _grades(views: Sequence[RunView]) -> list[Described]:
    """The grades that a judge gave in any of the runs."""
    columns = {name for view in views for name in view.run.predictions.columns}
    return [one for name, one in JUDGED.items() if name in columns]


def _run_columns(predictions: pl.DataFrame, names: Sequence[str]) -> dict[str, list[Any]]:
    columns = {name: predictions[column].to_list() for name, column in _COLUMNS.items()}
    lacking = [pl.lit(None, pl.Float64).alias(n) for n in names if n not in predictions.columns]
    metrics = predictions.with_columns(lacking).select(
        pl.when(pl.col(name).is_finite()).then(pl.col(name).round(3)).alias(name) for name in names
    )
    return {
        **columns,
        **_several(predictions),
        **{name: metrics[name].to_list() for name in names},
        "predictionSpans": answer_spans(predictions["prediction"], predictions["answers"]),
        "completionSpans": answer_spans(predictions["completion"], predictions["answers"]),
        "rank": answer_rank(predictions).to_list(),
        "hit": retrieval_hit(predictions).to_list(),
    }


def _several(predictions: pl.DataFrame) -> dict[str, list[Any]]:
    """All answers of a row with several: the text of each and its token recall; nothing else."""
    if "samples" not in predictions.columns:
        return {}
    recall = pl.element().struct.field("token_recall").round(3)
    each = pl.col("samples").list.eval(
        pl.struct(pl.element().struct.field("prediction"), recall.alias("recall"))
    )
    several = pl.when(pl.col("samples").list.len() > 1).then(each)
    rows = predictions.select(several.alias("samples"))["samples"].to_list()
    return {"samples": [[[s["prediction"], s["recall"]] for s in row or []] for row in rows]}


def packed(payload: Any) -> str:
    """A value as JSON, compressed, in base64; equal values give equal text."""
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Names out of JSON files can hold half a surrogate pair, which UTF-8 has no form for.
    data = gzip.compress(text.encode("utf-8", errors="replace"), compresslevel=6, mtime=0)
    return base64.b64encode(data).decode("ascii")

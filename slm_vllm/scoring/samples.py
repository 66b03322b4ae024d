"""Scores rows with several answers; a row has the mean of them."""

from __future__ import annotations

import polars as pl

from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.metrics import METRICS


def score_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds the metrics as `score_answers` does; a row's are the means over its `samples`.

    Args:
        frame: As for `score_answers`. Where it has `samples` (List(Struct) with `prediction`), each
            of them gets its own metrics; a row without any is scored by its `prediction`.
    """
    if "samples" not in frame.columns:
        return score_answers(frame)
    rows = score_answers(frame).with_row_index("row")
    several = rows.filter(pl.col("samples").list.len() > 0)
    answers = several.select("row", "answers", "samples").explode("samples").unnest("samples")
    scored = score_answers(answers)
    fields = [name for name in scored.columns if name not in ("row", "answers")]
    grouped = scored.group_by("row", maintain_order=True).agg(
        pl.struct(fields).alias("samples"),
        *(pl.col(metric).mean().alias(f"{metric}_mean") for metric in METRICS),
    )
    joined = rows.drop("samples").join(grouped, on="row", how="left", maintain_order="left")
    means = (pl.coalesce(f"{metric}_mean", metric).alias(metric) for metric in METRICS)
    return joined.with_columns(means).select(*frame.columns, *_added(frame))


def _added(frame: pl.DataFrame) -> list[str]:
    return [metric for metric in METRICS if metric not in frame.columns]

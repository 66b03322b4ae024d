"""Answer metrics over whole columns: no Python call per row.

Every metric compares the prediction with each of the row's answers. A row without a usable answer
(one with at least one word) has null in every metric and is counted as unscored, not as wrong.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import polars as pl

from slm_vllm.errors import DataError
from slm_vllm.scoring.metrics import METRICS, Pairs
from slm_vllm.scoring.normalize import (
    is_unusual,
    searchable,
    squad_form,
    squad_tokens,
    stands_in,
    words,
)

_SLICE = 16_384  # rows
_COLUMNS = {"prediction": pl.String(), "answers": pl.List(pl.String)}


def score_answers(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds a column for each of `METRICS` (Float64, in [0, 1] or null) to a frame.

    Args:
        frame: Has `prediction` (String, null counts as empty) and `answers` (List(String)).
            Columns of metrics that it has already are replaced.

    Raises:
        DataError: It has not.
    """
    _check(frame)
    # Rows do not touch each other, and polars computes without Python's lock: a slice for each
    # thread at a time uses every core, which one expression on one column does not.
    slices = list(frame.select("prediction", "answers").iter_slices(_SLICE)) or [frame]
    if len(slices) == 1:
        return frame.with_columns(_scores(slices[0]).get_columns())
    with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
        return frame.with_columns(pl.concat(threads.map(_scores, slices)).get_columns())


def _check(frame: pl.DataFrame) -> None:
    if not isinstance(frame, pl.DataFrame):
        raise DataError(f"what is scored is a polars DataFrame, not a {type(frame).__name__}")
    for name, dtype in _COLUMNS.items():
        found = frame.schema.get(name)
        # A column of nulls or empty lists alone has no type of its own.
        if found not in (dtype, pl.Null(), pl.List(pl.Null)):
            there = "is missing" if found is None else f"has the type {found}"
            raise DataError(f"the frame to score: {name} {there}; it has to be {dtype}")


def _scores(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of the metrics alone, in the frame's order."""
    rows = frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
        pl.col("prediction").cast(pl.String).fill_null(""),
        pl.col("answers").cast(pl.List(pl.String)),
    )
    pairs = _pairs(rows)
    values = pairs.select(
        "row",
        "is_new",
        *(one.of_pairs(pairs).cast(pl.Float64).alias(one.name) for one in METRICS.values()),
    )
    scores = values.group_by("row").agg(one.of_row(pl.col(one.name)) for one in METRICS.values())
    joined = rows.select("row").join(scores, on="row", how="left", maintain_order="left")
    return joined.select(*METRICS)


def _pairs(rows: pl.DataFrame) -> Pairs:
    """One line for each pair of a prediction and a usable answer."""
    answers = rows.select("row", pl.col("answers").alias("answer")).explode(
        "answer", empty_as_null=True
    )
    answers = answers.drop_nulls("answer")
    answers = answers.with_columns(_forms(answers["answer"]))
    answers = answers.filter(pl.col("answer_words").list.len() > 0)
    answers = answers.with_columns(pl.col("answer_words").list.unique())
    predictions = rows.select("prediction")
    forms = _forms(predictions["prediction"])
    predictions = predictions.with_columns(
        *forms, searchable(predictions["prediction"], forms[1]).alias("searchable")
    )
    pairs = pl.concat([answers, predictions[answers["row"]]], how="horizontal")
    return pairs.with_columns(
        stands_in("answer_form", "searchable").alias("stands"),
        pl.struct("row", "answer_form").is_first_distinct().alias("is_new"),
    ).drop("searchable")


def _forms(text: pl.Series) -> list[pl.Series]:
    """The words of each text, its SQuAD form, its tokens, whether one of them repeats."""
    unusual = is_unusual(text)
    tokens = squad_tokens(text, unusual)
    return [
        words(text, unusual).alias(f"{text.name}_words"),
        squad_form(tokens).alias(f"{text.name}_form"),
        tokens.alias(f"{text.name}_tokens"),
        (tokens.list.n_unique() < tokens.list.len()).alias(f"{text.name}_repeats"),
    ]

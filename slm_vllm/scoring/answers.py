"""Answer metrics over whole columns: no Python call per row.

Every metric compares the prediction with each of the row's answers and keeps the best. A row
without a usable answer (one with at least one word) has null in every metric and is counted as
unscored, not as wrong.
"""

from __future__ import annotations

import polars as pl

from slm_vllm.scoring.normalize import squad_normalized, words

METRICS = ("token_recall", "exact_match", "f1", "contains", "substring_recall")


def score_answers(frame: pl.DataFrame) -> pl.DataFrame:
    r"""Adds the columns of `METRICS` (Float64, in [0, 1] or null) to a frame.

    * `token_recall`: |T(p) & T(a)| / |T(a)|, T = the set of lower-cased words (`\w+`).
    * `exact_match`: 1 where prediction and answer are equal in SQuAD's normal form.
    * `f1`: harmonic mean of precision and recall over SQuAD-normalised tokens, as multisets.
    * `contains`: 1 where a normalised answer stands in the normalised prediction as whole words
      ("K" is not in "Korea").
    * `substring_recall`: share of the row's distinct normalised answers that are.

    Args:
        frame: Has `prediction` (String, null counts as empty) and `answers` (List(String)).
    """
    rows = frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
        pl.col("prediction").fill_null("").alias("prediction"),
        "answers",
    ).with_columns(
        words(pl.col("prediction")).list.unique().alias("prediction_words"),
        squad_normalized(pl.col("prediction")).alias("prediction_normalized"),
    )
    # An answer of underscores is a word, yet punctuation to SQuAD: it must not match "".
    has_form = pl.col("answer_normalized") != ""
    # One line for each pair of prediction and answer.
    pairs = (
        rows.explode("answers", empty_as_null=True)
        .rename({"answers": "answer"})
        .drop_nulls("answer")
        .with_columns(
            words(pl.col("answer")).list.unique().alias("answer_words"),
            squad_normalized(pl.col("answer")).alias("answer_normalized"),
        )
        .filter(pl.col("answer_words").list.len() > 0)
        .with_columns(
            (
                pl.col("prediction_words").list.set_intersection("answer_words").list.len()
                / pl.col("answer_words").list.len()
            ).alias("token_recall"),
            (has_form & (pl.col("prediction_normalized") == pl.col("answer_normalized")))
            .cast(pl.Float64)
            .alias("exact_match"),
            (
                has_form
                & pl.format(" {} ", "prediction_normalized").str.contains(
                    pl.format(" {} ", "answer_normalized"), literal=True
                )
            )
            .cast(pl.Float64)
            .alias("contains"),
        )
    )
    pairs = pairs.with_columns(_f1(pairs).alias("f1"))
    found = (
        pairs.unique(["row", "answer_normalized"])
        .group_by("row")
        .agg(pl.col("contains").mean().alias("substring_recall"))
    )
    best = pairs.group_by("row").agg(pl.col("token_recall", "exact_match", "f1", "contains").max())
    scores = (
        rows.select("row")
        .join(best, on="row", how="left", maintain_order="left")
        .join(found, on="row", how="left", maintain_order="left")
    )
    return frame.with_columns(scores.select(METRICS).get_columns())


def _f1(pairs: pl.DataFrame) -> pl.Series:
    """SQuAD's F1 of each pair: 2 * overlap / (tokens predicted + tokens expected)."""
    predicted = _token_counts(pairs["prediction_normalized"])
    expected = _token_counts(pairs["answer_normalized"])
    overlap = (
        predicted.join(expected, on=["pair", "token"])
        .group_by("pair")
        .agg(pl.min_horizontal("count", "count_right").sum().alias("overlap"))
    )
    totals = (
        pl.concat([predicted, expected]).group_by("pair").agg(pl.col("count").sum().alias("total"))
    )
    order = pl.DataFrame({"pair": pl.int_range(pairs.height, dtype=pl.UInt32, eager=True)})
    return (
        order.join(totals, on="pair", how="left", maintain_order="left")
        .join(overlap, on="pair", how="left", maintain_order="left")
        .select((2.0 * pl.col("overlap") / pl.col("total")).fill_null(0.0))
        .to_series()
    )


def _token_counts(normalized: pl.Series) -> pl.DataFrame:
    """How often each token stands in each string: columns pair, token, count."""
    return (
        pl.DataFrame({"token": normalized})
        .select(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("pair"),
            pl.col("token").str.split(" "),
        )
        .explode("token", empty_as_null=True)
        .filter(pl.col("token") != "")
        .group_by("pair", "token")
        .agg(pl.len().alias("count"))
    )

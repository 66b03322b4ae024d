"""Answer metrics over whole columns: no Python call per row.

Every metric compares the prediction with each of the row's answers and keeps the best. A row
without a usable answer (one with at least one word) has null in every metric and is counted as
unscored, not as wrong.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import polars as pl

from slm_vllm.scoring.normalize import squad_tokens, words

METRICS = ("token_recall", "exact_match", "f1", "contains", "substring_recall")
_SLICE = 16_384  # rows


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
    # Rows do not touch each other, and polars computes without Python's lock: a slice for each
    # thread at a time uses every core, which one expression on one column does not.
    slices = list(frame.select("prediction", "answers").iter_slices(_SLICE)) or [frame]
    if len(slices) == 1:
        return frame.with_columns(_scores(slices[0]).get_columns())
    with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
        return frame.with_columns(pl.concat(threads.map(_scores, slices)).get_columns())


def _scores(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of `METRICS` alone, in the frame's order."""
    rows = frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
        pl.col("prediction").fill_null(""),
        "answers",
    )
    predictions = rows.select("row", "answers").with_columns(_forms(rows["prediction"]))
    # One line for each pair of prediction and answer.
    pairs = (
        predictions.explode("answers", empty_as_null=True)
        .rename({"answers": "answer"})
        .drop_nulls("answer")
    )
    pairs = pairs.with_columns(_forms(pairs["answer"])).filter(
        pl.col("answer_words").list.len() > 0
    )
    # An answer of underscores is a word, yet punctuation to SQuAD: it must not match "".
    has_form = pl.col("answer_form") != ""
    is_inside = pl.format(" {} ", "prediction_form").str.contains(
        pl.format(" {} ", "answer_form"), literal=True
    )
    pairs = pairs.select(
        "row",
        "answer_form",
        (_shared("prediction_words", "answer_words") / pl.col("answer_words").list.len()).alias(
            "token_recall"
        ),
        (has_form & (pl.col("prediction_form") == pl.col("answer_form")))
        .cast(pl.Float64)
        .alias("exact_match"),
        _f1(pairs).alias("f1"),
        (has_form & is_inside).cast(pl.Float64).alias("contains"),
    )
    found = (
        pairs.unique(["row", "answer_form"])
        .group_by("row")
        .agg(pl.col("contains").mean().alias("substring_recall"))
    )
    best = pairs.group_by("row").agg(pl.col("token_recall", "exact_match", "f1", "contains").max())
    scores = (
        rows.select("row")
        .join(best, on="row", how="left", maintain_order="left")
        .join(found, on="row", how="left", maintain_order="left")
    )
    return scores.select(METRICS)


def _forms(text: pl.Series) -> list[pl.Series]:
    """The distinct words of each text, its SQuAD tokens and its SQuAD form."""
    tokens = squad_tokens(text)
    return [
        words(text).list.unique().alias(f"{text.name}_words"),
        tokens.alias(f"{text.name}_tokens"),
        tokens.list.join(" ").alias(f"{text.name}_form"),
    ]


def _shared(left: str, right: str) -> pl.Expr:
    return pl.col(left).list.set_intersection(right).list.len()


def _f1(pairs: pl.DataFrame) -> pl.Series:
    """SQuAD's F1 of each pair: 2 * overlap / (tokens predicted + tokens expected).

    Where a side has no token twice, the overlap of the multisets is that of the sets.
    """
    sizes = pairs.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("pair"),
        _shared("prediction_tokens", "answer_tokens").alias("overlap"),
        pl.sum_horizontal(pl.col("prediction_tokens", "answer_tokens").list.len()).alias("total"),
        pl.all_horizontal(
            pl.col(side).list.n_unique() < pl.col(side).list.len()
            for side in ("prediction_tokens", "answer_tokens")
        ).alias("repeats"),
    )
    repeating = (
        pairs.select("prediction_tokens", "answer_tokens").with_columns(sizes).filter("repeats")
    )
    overlap = pl.col("overlap")
    if repeating.height:
        sizes = sizes.join(
            _multiset_overlap(repeating), on="pair", how="left", maintain_order="left"
        )
        overlap = pl.coalesce("multiset_overlap", "overlap")
    f1 = pl.when(pl.col("total") > 0).then(2.0 * overlap / pl.col("total")).otherwise(0.0)
    return sizes.select(f1).to_series()


def _multiset_overlap(pairs: pl.DataFrame) -> pl.DataFrame:
    """Tokens both sides have, each as often as the side with fewer: pair, multiset_overlap."""
    counts = [
        pairs.select("pair", pl.col(side).alias("token"))
        .explode("token")
        .group_by("pair", "token")
        .agg(pl.len().alias("count"))
        for side in ("prediction_tokens", "answer_tokens")
    ]
    return (
        counts[0]
        .join(counts[1], on=["pair", "token"])
        .group_by("pair")
        .agg(pl.min_horizontal("count", "count_right").sum().alias("multiset_overlap"))
    )

"""Token recall by properties of the question: the data behind the report's plots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from slm_vllm.scoring.answer_length import ANSWER_LENGTHS, Bins, answer_length
from slm_vllm.scoring.intervals import MeanEstimate, estimate_mean

POSITIONS: Bins = (
    ("start", 0), ("1-999", 1), ("1000-4999", 1000), ("5000-19999", 5000), ("20000+", 20000),
)  # fmt: skip
RANKS: Bins = (
    ("none", 0), ("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5), ("6-10", 6), ("11+", 11),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """Mean token recall of the rows of one bin."""

    label: str
    estimate: MeanEstimate


def by_answer_length(predictions: pl.DataFrame) -> list[Group]:
    """By the number of words of the row's shortest usable answer."""
    return _grouped(predictions, answer_length(predictions["answers"]), ANSWER_LENGTHS)


def by_rank(predictions: pl.DataFrame) -> list[Group]:
    """By the rank of the first passage that holds an answer; "none" comes last."""
    groups = _grouped(predictions, answer_rank(predictions), RANKS)
    return sorted(groups, key=lambda group: group.label == "none")


def by_position(predictions: pl.DataFrame) -> list[Group]:
    """By where in its document the first passage that holds an answer begins, in characters."""
    return _grouped(predictions, answer_position(predictions), POSITIONS)


def answer_rank(predictions: pl.DataFrame) -> pl.Series:
    """Rank of the first searched passage that holds an answer: 0 for none, null if not known.

    Taken from the row's reciprocal rank (`answer_mrr`), which looks further than the prompt.
    """
    reciprocal = pl.col("search").str.json_path_match("$.answer_mrr").cast(pl.Float64, strict=False)
    return predictions.select(
        pl.when(reciprocal > 0)
        .then((1.0 / reciprocal).round())
        .when(reciprocal == 0)
        .then(0.0)
        .cast(pl.Int64)
        .alias("rank")
    )["rank"]


def retrieval_hit(predictions: pl.DataFrame) -> pl.Series:
    """Whether a passage with an answer went into the prompt; null where nothing was searched."""
    rank = answer_rank(predictions)
    return predictions.select(
        pl.when(rank.is_not_null()).then((rank > 0) & (rank <= pl.col("n_passages_used")))
    ).to_series()


def answer_position(predictions: pl.DataFrame) -> pl.Series:
    """Offset in its document of the first passage in the prompt that holds an answer.

    Known where the run kept its passages and they came from an index: the id of such a passage is
    its document's id, a colon and the offset. Null elsewhere.
    """
    passage = pl.col("contexts").list.get(pl.col("rank") - 1, null_on_oob=True)
    ids = predictions.select("contexts", answer_rank(predictions).alias("rank")).select(
        pl.when(pl.col("rank") > 0).then(passage).alias("passage")
    )
    passage_id = pl.col("passage").struct.field("passage_id")
    prefix = pl.concat_str(pl.col("passage").struct.field("document_id"), pl.lit(":"))
    start = pl.when(passage_id.str.starts_with(prefix)).then(
        passage_id.str.strip_prefix(prefix).cast(pl.Int64, strict=False)
    )
    return ids.select(start.alias("position"))["position"]


def _grouped(predictions: pl.DataFrame, keys: pl.Series, bins: Bins) -> list[Group]:
    """The bins that have scored rows, in order."""
    recall = predictions["token_recall"]
    groups = []
    for i, (label, low) in enumerate(bins):
        high = bins[i + 1][1] if i + 1 < len(bins) else math.inf
        inside = ((keys >= low) & (keys < high)).fill_null(False)
        estimate = estimate_mean(recall.filter(inside))
        if estimate.n:
            groups.append(Group(label, estimate))
    return groups

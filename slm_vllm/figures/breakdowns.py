"""Token recall by properties of the question.

A new one is a `Breakdown` in `BREAKDOWNS`: the report and trackers draw all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import polars as pl

from slm_vllm.figures.kinds import Group, GroupMeans, Series
from slm_vllm.scoring.answer_length import ANSWER_LENGTHS, Bins, answer_length
from slm_vllm.scoring.intervals import ValueTally

_POSITIONS: Bins = (
    ("start", 0), ("1-999", 1), ("1000-4999", 1000), ("5000-19999", 5000), ("20000+", 20000),
)  # fmt: skip
_MOST_TOPICS = 20
_AT_ONCE = 16_384
RANKS: Bins = (
    ("none", 0), ("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5), ("6-10", 6), ("11+", 11),
)  # fmt: skip


def _by_answer_length(parts: Iterable[pl.DataFrame]) -> list[Group]:
    """By the number of words of the row's shortest usable answer."""
    return _grouped(parts, lambda part: answer_length(part["answers"]), ANSWER_LENGTHS)


def _by_rank(parts: Iterable[pl.DataFrame]) -> list[Group]:
    """By the rank of the first passage that holds an answer; "none" comes last."""
    groups = _grouped(parts, answer_rank, RANKS)
    return sorted(groups, key=lambda group: group.label == "none")


def _by_position(parts: Iterable[pl.DataFrame]) -> list[Group]:
    """By where in its document the first passage that holds an answer begins, in characters."""
    return _grouped(parts, _answer_position, _POSITIONS)


def by_topic(parts: Iterable[pl.DataFrame]) -> list[Group]:
    """By the topic that a row's metadata names; the most frequent ones, in order of their names."""
    topics: dict[str, ValueTally] = {}
    for part in parts:
        named = part.select(
            pl.col("metadata").str.json_path_match("$.topic").alias("topic"), "token_recall"
        ).drop_nulls()
        for (topic,), rows in named.group_by("topic"):
            topics.setdefault(str(topic), ValueTally()).add(rows["token_recall"])
    most = sorted(topics, key=lambda topic: (-topics[topic].n, topic))[:_MOST_TOPICS]
    return [Group(topic, topics[topic].estimate()) for topic in sorted(most)]


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


def _answer_position(predictions: pl.DataFrame) -> pl.Series:
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


def _grouped(
    parts: Iterable[pl.DataFrame], key: Callable[[pl.DataFrame], pl.Series], bins: Bins
) -> list[Group]:
    """The bins that have scored rows, in order."""
    tallies = [ValueTally() for _ in bins]
    # What a key is made of, such as the words of all answers, is much larger than the rows.
    for part in chain.from_iterable(part.iter_slices(_AT_ONCE) for part in parts):
        keys = key(part)
        for i, (_, low) in enumerate(bins):
            high = bins[i + 1][1] if i + 1 < len(bins) else math.inf
            inside = ((keys >= low) & (keys < high)).fill_null(False)
            tallies[i].add(part["token_recall"].filter(inside))
    named = zip(bins, tallies, strict=True)
    return [Group(label, tally.estimate()) for (label, _), tally in named if tally.n]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A property of the question that token recall is shown by.

    Attributes:
        key: Fit for a file name.
        title: Of its figure.
        note: How to read it.
        unit: What the groups are.
        columns: Of the predictions, all that it reads beside `token_recall`.
        groups: Groups a run's predictions, given in parts; none where the property is not known.
        order: Labels of all groups; () for that of their names.
    """

    key: str
    title: str
    note: str
    unit: str
    columns: tuple[str, ...]
    groups: Callable[[Iterable[pl.DataFrame]], list[Group]]
    order: tuple[str, ...] = ()

    def figure(self, series: Sequence[Series]) -> GroupMeans:
        """The figure of some runs."""
        labels = {group.label for one in series for group in one.groups}
        is_single = any(group.estimate.n == 1 for one in series for group in one.groups)
        note = (
            f"{self.note} Hollow: one question, which has no interval." if is_single else self.note
        )
        order = self.order or tuple(sorted(labels))
        return GroupMeans(self.key, self.title, note, self.unit, order, series)


def _labels(bins: Bins) -> tuple[str, ...]:
    """In order; where nothing was found has no rank and stands behind the ranks."""
    return tuple(sorted((label for label, _ in bins), key=lambda label: label == "none"))


BREAKDOWNS = (
    Breakdown(
        "answer-length",
        "Token recall by answer length",
        "Words of the shortest expected answer.",
        "words in the answer",
        ("answers",),
        _by_answer_length,
        _labels(ANSWER_LENGTHS),
    ),
    Breakdown(
        "rank",
        "Token recall by retrieval rank",
        "Rank of the first passage that holds an answer. The search looks further than the prompt: "
        "a passage behind the last one of the prompt was not shown to the model.",
        "rank of the first passage with an answer",
        ("search",),
        _by_rank,
        _labels(RANKS),
    ),
    Breakdown(
        "position",
        "Token recall by position in the document",
        "Where in its document the first passage of the prompt that holds an answer begins.",
        "characters before the passage",
        ("search", "contexts"),
        _by_position,
        _labels(_POSITIONS),
    ),
    Breakdown(
        "topic",
        "Token recall by topic",
        f"Topics that the dataset names, the {_MOST_TOPICS} with most questions.",
        "topic",
        ("metadata",),
        by_topic,
    ),
)

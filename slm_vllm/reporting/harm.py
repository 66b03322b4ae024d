"""Answers that context destroyed: right closed book, no longer right with passages; and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from slm_vllm.figures.breakdowns import answer_rank, retrieval_hit
from slm_vllm.reporting.pairing import DatasetPairs
from slm_vllm.rundir.reading import RunData
from slm_vllm.scoring.answer_spans import holds_answer
from slm_vllm.scoring.metrics import MAIN

CAUSES = {
    "absent": "answer not in the passages",
    "unused": "in a passage but not used",
    "copied": "another passage's answer copied",
    "cut": "cut off by the budget",
    "failed": "request failed",
    "unknown": "not known, no passages kept",
}


@dataclass(frozen=True, slots=True)
class Harm:
    """The destroyed answers of one run.

    Attributes:
        run: Name of the run with context.
        closed_book: Name of the model's run without.
        right_closed_book: Answers that there were to destroy.
        gained: Answers that only the run with context has right.
        rows: Rows of the run's predictions.
        causes: A key of `CAUSES` for each of these.
    """

    run: str
    closed_book: str
    right_closed_book: int
    gained: int
    rows: tuple[int, ...]
    causes: tuple[str, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """Answers by cause."""
        return Counter(self.causes)


def harms(datasets: Sequence[DatasetPairs]) -> list[Harm]:
    """The destroyed answers of every run that has context and a closed-book run to compare with."""
    found = []
    for dataset in datasets:
        if dataset.aligned is None:
            continue
        runs = {view.run.name: view.run for view in dataset.views}
        for effect in dataset.effects:
            if effect.closed_book is None:
                continue
            lost = _lost(runs[effect.run], runs[effect.closed_book], dataset.aligned.question_ids)
            everything = effect.changes[0]
            found.append(
                Harm(
                    effect.run,
                    effect.closed_book,
                    everything.right_closed_book,
                    everything.gained,
                    tuple(lost["row"]),
                    tuple(lost.select(_cause()).to_series()),
                )
            )
    return found


def _lost(run: RunData, closed_book: RunData, question_ids: pl.Series) -> pl.DataFrame:
    """The destroyed rows, with all that tells their cause."""
    known = closed_book.predictions.select(
        "question_id",
        pl.col("finish_reason").alias("closed_finish"),
        pl.col(MAIN).alias("closed_value"),
    )
    rows = (
        run.predictions.with_columns(
            answer_rank(run.predictions).alias("rank"), retrieval_hit(run.predictions).alias("hit")
        )
        .with_row_index("row")
        .join(known, on="question_id", how="inner", maintain_order="left")
        .filter(pl.col("question_id").is_in(question_ids.implode()))
        .filter((pl.col("closed_value") == 1) & pl.col(MAIN).is_finite() & (pl.col(MAIN) != 1))
    )
    return rows.join(_in_passages(rows), on="row", how="left", maintain_order="left")


def _in_passages(rows: pl.DataFrame) -> pl.DataFrame:
    """For each row that kept passages: is an answer in one, is the prediction in one without."""
    passages = (
        rows.select("row", "answers", "prediction", pl.col("contexts").alias("passage"))
        .explode("passage", empty_as_null=True)
        .drop_nulls("passage")
        .unnest("passage")
    )
    text = passages.select(
        pl.format("{} {}", pl.col("title").fill_null(""), pl.col("text").fill_null(""))
    ).to_series()
    predictions = passages.select(pl.concat_list("prediction")).to_series()
    holds = holds_answer(text, passages["answers"])
    in_answer = holds_answer(text, predictions)
    return (
        passages.select("row", holds.alias("holds"), in_answer.alias("in_answer"))
        .group_by("row")
        .agg(
            pl.col("holds").any().alias("answer_in_passage"),
            (pl.col("in_answer") & ~pl.col("holds")).any().alias("copied"),
        )
    )


def _cause() -> pl.Expr:
    """The first that applies.

    An answer that ended at its limit closed book too, and was right there, was not lost by it.
    """
    in_passage = pl.coalesce("answer_in_passage", "hit")
    cut_answer = pl.col("unterminated_thinking").fill_null(False) | (
        (pl.col("finish_reason") == "length") & pl.col("closed_finish").ne_missing("length")
    )
    cut_prompt = pl.col("truncated").fill_null(False) & ~in_passage & (pl.col("rank") > 0)
    return (
        pl.when(pl.col("error").is_not_null())
        .then(pl.lit("failed"))
        .when(cut_answer | cut_prompt)
        .then(pl.lit("cut"))
        .when(in_passage.is_null())
        .then(
            pl.when(pl.col("n_passages_used") == 0)
            .then(pl.lit("absent"))
            .otherwise(pl.lit("unknown"))
        )
        .when(~in_passage)
        .then(pl.lit("absent"))
        .when(pl.col("copied").fill_null(False))
        .then(pl.lit("copied"))
        .otherwise(pl.lit("unused"))
        .alias("cause")
    )

"""Search metrics, by answer string and by gold document.

By answer, a passage is relevant when one of the row's answers stands in its title and text, as
`scoring.normalize` defines it for the metric `contains` too: "art" does not stand in "party". By
document, a passage is relevant when it was cut from a document that is judged relevant (see
`Qrels`; without a file of judgements, one of the row's own); a document counts at the rank of
its best passage.

For one row, with relevant items among the first k results:

* hit@k: 1 if there is one, else 0.
* recall@k: the share of the row's answers (or documents) that is found.
* MRR: 1 / rank of the first, 0 if there is none among the passages searched for.
* nDCG@k: sum of grade / log2(rank + 1) over the documents found, divided by that of the best order
  (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002; trec_eval's
  `ndcg_cut`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import polars as pl

from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.qrels import Grades, Qrels
from slm_vllm.retrieval.trec_run import RunWriter
from slm_vllm.scoring.metrics import NDCG_DEPTH, SEARCH_DEPTHS
from slm_vllm.scoring.normalize import (
    searchable,
    skeleton,
    squad_form,
    squad_tokens,
    stands_in,
    usable_answers,
)
from slm_vllm.types import RetrievedPassage

FRAME_SCHEMA = pl.Schema(
    {
        "answers": pl.List(pl.String),
        "gold_document_ids": pl.List(pl.String),  # judged relevant
        "gold_grades": pl.List(pl.Int64),  # above 0, as long as the ids
        "retrieved_texts": pl.List(pl.String),  # title and text, best first
        "retrieved_document_ids": pl.List(pl.String),  # best first, as long as the texts
    }
)


class Mean(TypedDict):
    """A mean over the rows it can be computed for. `mean` is None when there are none."""

    mean: float | None
    n: int


def score_search(frame: pl.DataFrame, depth: int | None = None) -> pl.DataFrame:
    """All search metrics of each row, a Float64 column each.

    Args:
        frame: One row of `FRAME_SCHEMA` for each question.
        depth: How many passages were searched for; cut-offs beyond it are left out, because they
            would be the same as that at the depth. None: all are there.

    Returns:
        `answer_hit@k`, `answer_recall@k`, `answer_mrr`, `document_hit@k`, `document_recall@k`,
        `document_mrr` and `document_ndcg@10`. The first three are null where the row has no answer,
        the others where it has no gold document.
    """
    ks = [k for k in SEARCH_DEPTHS if depth is None or k <= depth]
    ndcg = depth is None or depth >= NDCG_DEPTH
    return pl.concat(
        [_answer_metrics(frame, ks), _document_metrics(frame, ks, ndcg)], how="horizontal"
    )


class SearchMetrics:
    """Means of the search metrics over batches, in memory that does not grow with them.

    Args:
        depth: See `score_search`.
        aliases: See `search_frame`.
    """

    def __init__(self, depth: int | None, aliases: Mapping[str, str]) -> None:
        self._depth, self._aliases = depth, aliases
        self._sums: dict[str, tuple[float, int]] = {}

    def add(
        self,
        retrieved: Sequence[Sequence[RetrievedPassage]],
        answers: Sequence[Sequence[str]],
        judged: Sequence[Grades],
    ) -> None:
        """Counts a batch: what was retrieved for each question, its answers and documents."""
        frame = search_frame(retrieved, answers, judged, self._aliases)
        for values in score_search(frame, self._depth):
            total, n = self._sums.get(values.name, (0.0, 0))
            self._sums[values.name] = total + float(values.sum()), n + values.count()

    def result(self) -> dict[str, Mean]:
        """The means over all batches so far."""
        return {
            name: Mean(mean=total / n if n else None, n=n)
            for name, (total, n) in self._sums.items()
        }


def measure_search(
    retriever: BaseRetriever,
    rows: Iterable[pl.DataFrame],
    depth: int,
    min_score: float | None,
    qrels: Qrels,
    write: RunWriter | None = None,
) -> dict[str, Any]:
    """Searches for every question of a dataset: how well, and how fast.

    Args:
        retriever: What searches.
        rows: Canonical rows, with documents where they are judged by these.
        depth: Passages searched for.
        min_score: See `BaseRetriever.retrieve`.
        qrels: Say which documents are relevant.
        write: Takes what was found.
    """
    metrics = SearchMetrics(depth, retriever.passages.aliases)
    n_questions, seconds, empty = 0, 0.0, 0
    for frame in rows:
        begin = time.perf_counter()
        found = retriever.retrieve_rows(frame, depth, min_score)
        seconds += time.perf_counter() - begin
        metrics.add(found, frame["answers"].to_list(), qrels.of(frame))
        if write is not None:
            write.add(frame["question_id"].to_list(), found)
        n_questions += frame.height
        empty += sum(not row for row in found)
    return {
        "questions": n_questions,
        "without_passage": empty,
        "search_seconds": round(seconds, 3),
        "questions_per_second": round(n_questions / max(seconds, 1e-9), 1),
        "metrics": metrics.result(),
    }


def search_frame(
    retrieved: Sequence[Sequence[RetrievedPassage]],
    answers: Sequence[Sequence[str]],
    judged: Sequence[Grades],
    aliases: Mapping[str, str],
) -> pl.DataFrame:
    """Lays a batch out as `score_search` reads it.

    Args:
        retrieved: Passages of each question, best first.
        answers: Of each question.
        judged: The judged documents of each question; those with a grade below 1 do not count.
        aliases: Ids of documents stored once under another id (`PassageStore.aliases`).
    """
    gold = [_relevant(grades, aliases) for grades in judged]
    columns: dict[str, Any] = {
        "answers": [list(row) for row in answers],
        "gold_document_ids": [list(grades) for grades in gold],
        "gold_grades": [list(grades.values()) for grades in gold],
        "retrieved_texts": [
            [f"{r.passage.title} {r.passage.text}" for r in row] for row in retrieved
        ],
        "retrieved_document_ids": [[r.passage.document_id for r in row] for row in retrieved],
    }
    return pl.DataFrame(columns, schema=FRAME_SCHEMA)


def _relevant(grades: Grades, aliases: Mapping[str, str]) -> dict[str, int]:
    """The documents above grade 0 under the ids they are stored under."""
    found: dict[str, int] = {}
    for name, grade in grades.items():
        if grade > 0:
            kept = aliases.get(name, name)
            found[kept] = max(grade, found.get(kept, 0))
    return found


def _answer_metrics(frame: pl.DataFrame, ks: Sequence[int]) -> pl.DataFrame:
    usable = usable_answers(frame["answers"])
    tokens = squad_tokens(usable["answer"])
    answers = usable.select("row", squad_form(tokens), token=_longest(tokens)).unique()
    ranked = _ranked(frame["retrieved_texts"].alias("text"))
    pairs = answers.join(_holding(answers, ranked), on=["row", "answer"], how="left")
    first = pairs.group_by("row", "answer").agg(rank=pl.col("rank").min())
    return _for_each_row(frame, first.group_by("row").agg(_rank_metrics("answer", ks)))


def _holding(answers: pl.DataFrame, ranked: pl.DataFrame) -> pl.DataFrame:
    """The ranks at which an answer stands in the text, as `row`, `answer`, `rank`.

    Distinct texts are normalised once, since top passages are shared by many questions, and only
    those that can hold an answer.
    """
    distinct = ranked.select(pl.col("text").unique())
    distinct = distinct.with_columns(skeleton=skeleton(distinct["text"]))
    possible = (
        answers.join(ranked, on="row")
        .join(distinct, on="text")
        .filter(pl.col("skeleton").str.contains(pl.col("token"), literal=True).fill_null(True))
    )
    left = possible.select(pl.col("text").unique())
    left = left.with_columns(searchable=searchable(left["text"]))
    found = possible.join(left, on="text").filter(stands_in("answer", "searchable"))
    return found.select("row", "answer", "rank")


def _longest(tokens: pl.Series) -> pl.Series:
    """The longest token of each list; "" of an empty one."""
    lengths = tokens.list.eval(pl.element().str.len_bytes()).list.arg_max()
    return tokens.list.get(lengths.fill_null(0), null_on_oob=True).fill_null("")


def _document_metrics(frame: pl.DataFrame, ks: Sequence[int], ndcg: bool) -> pl.DataFrame:
    gold = (
        frame.select(document="gold_document_ids", grade="gold_grades")
        .with_row_index("row")
        .filter(pl.col("document").list.len() > 0)
        .explode("document", "grade")
    )
    ranked = (
        _ranked(frame["retrieved_document_ids"].alias("document"))
        .group_by("row", "document")
        .agg(pl.col("rank").min())
        .with_columns(
            # Passages of one document take up one place in the ranking of documents.
            place=pl.col("rank").rank("ordinal").over("row")
        )
    )
    found = gold.join(ranked, on=["row", "document"], how="left")
    metrics = _rank_metrics("document", ks)
    if ndcg:
        metrics.append(_ndcg(NDCG_DEPTH).alias(f"document_ndcg@{NDCG_DEPTH}"))
    return _for_each_row(frame, found.group_by("row").agg(metrics))


def _ranked(retrieved: pl.Series) -> pl.DataFrame:
    """What was retrieved for each row, one item a line, with its `rank`."""
    rows = retrieved.to_frame().with_row_index("row").filter(retrieved.list.len() > 0)
    return rows.explode(retrieved.name).with_columns(rank=pl.int_range(1, pl.len() + 1).over("row"))


def _rank_metrics(by: str, ks: Sequence[int]) -> list[pl.Expr]:
    """hit@k, recall@k and MRR from the `rank` of each relevant item, null where it is not found."""
    rank = pl.col("rank")
    within = {k: (rank <= k).fill_null(False) for k in ks}
    return [
        *(found.any().cast(pl.Float64).alias(f"{by}_hit@{k}") for k, found in within.items()),
        *(found.mean().alias(f"{by}_recall@{k}") for k, found in within.items()),
        (1.0 / rank.min()).fill_null(0.0).alias(f"{by}_mrr"),
    ]


def _ndcg(k: int) -> pl.Expr:
    """nDCG@k from the `grade` of each relevant document and its `place`, null if not found."""
    gain = pl.col("grade") / (pl.col("place") + 1).log(2)
    best = pl.col("grade").sort(descending=True).head(k)
    best_gain = best / (pl.int_range(1, pl.min_horizontal(pl.len(), k) + 1) + 1).log(2)
    return gain.filter(pl.col("place") <= k).sum() / best_gain.sum()


def _for_each_row(frame: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    """The metrics in the order of the frame, null for rows that have none."""
    rows = frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"))
    return rows.join(metrics, on="row", how="left", maintain_order="left").drop("row")

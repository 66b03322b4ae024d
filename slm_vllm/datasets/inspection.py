"""The reports of `data check` and `data stats`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.datasets.file_dataset import DUPLICATE, FileDataset
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.datasets.rejects import RejectLog
from slm_vllm.datasets.schema import CANONICAL_SCHEMA
from slm_vllm.scoring.answer_length import answer_length
from slm_vllm.types import RejectedRow

_QUANTILES = (("min", 0.0), ("median", 0.5), ("p95", 0.95), ("max", 1.0))
NO_TOPIC = "(none)"
_TEXT_SHOWN = 200


@dataclass(slots=True)
class CheckReport:
    """Whether a file can be used, and what is odd about it.

    Attributes:
        path: The file.
        kind: The dataset class that reads it.
        layout: Its form and columns as found.
        columns: The canonical columns with their types.
        rows: Usable rows.
        rejected: Rows left out, duplicates among them.
        duplicates: Rows left out because an earlier row has their question_id.
        empty_answers: Usable rows without an answer that has a word; they are counted as unscored.
        without_contexts: Usable rows without gold contexts; `oracle` mode cannot help them.
        without_documents: Usable rows without documents; `retriever` mode has nothing of theirs.
        first_rejected: The first of the rejected rows, with line and reason.
        notices: What was left out of rows that are kept.
        first_row: What the first usable row was understood as: `question_id`, `question`,
            `answers`, and the beginnings of the first of its contexts and documents, None where
            it has none.
    """

    path: str
    kind: str
    layout: str
    columns: dict[str, str]
    rows: int = 0
    rejected: int = 0
    duplicates: int = 0
    empty_answers: int = 0
    without_contexts: int = 0
    without_documents: int = 0
    first_rejected: list[RejectedRow] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    first_row: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Gives the report as plain values."""
        return {"usable": True, **asdict(self)}


class _Rejects(RejectLog):
    """Counts duplicates apart."""

    duplicates = 0

    def __call__(self, row: RejectedRow) -> None:
        self.duplicates += row.reason.startswith(DUPLICATE)
        super().__call__(row)


def check_dataset(
    path: str, kind: str | None = None, options: Mapping[str, Any] | None = None
) -> CheckReport:
    """Reads a whole file and reports what a run would meet.

    Raises:
        DataError: The file is not usable.
    """
    rejects = _Rejects()
    dataset = open_dataset(kind, path, on_reject=rejects, options=options)
    layout = ""
    if isinstance(dataset, FileDataset):
        layout = str(dataset.open_form(next(dataset.files())))
    columns = {name: str(dtype) for name, dtype in CANONICAL_SCHEMA.items()}
    report = CheckReport(path, dataset.kind, layout, columns)
    for frame in dataset.scan():
        empty = frame.select((pl.col("contexts", "documents").list.len() == 0).sum())
        contexts, documents = empty.row(0)
        if not report.rows and frame.height:
            report.first_row = _beginning(frame.row(0, named=True))
        report.rows += frame.height
        report.empty_answers += answer_length(frame["answers"]).null_count()
        report.without_contexts += contexts
        report.without_documents += documents
    report.rejected, report.duplicates = rejects.count, rejects.duplicates
    report.first_rejected = rejects.first
    report.notices = list(dataset.notices)
    if report.rows and report.empty_answers == report.rows:
        report.notices.append(
            "no metric can judge this dataset: none of its answers has a letter or a digit"
        )
    return report


def _beginning(row: Mapping[str, Any]) -> dict[str, Any]:
    context = row["contexts"][0] if row["contexts"] else None
    document = row["documents"][0] if row["documents"] else None
    if document is not None:
        document = ": ".join(part for part in (document["title"], document["text"]) if part)
    return {
        "question_id": row["question_id"],
        "question": row["question"],
        "answers": row["answers"],
        "context": None if context is None else context[:_TEXT_SHOWN],
        "document": None if document is None else document[:_TEXT_SHOWN],
    }


def dataset_stats(
    path: str, kind: str | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Measures lengths in words (runs of anything but white space), over all rows and by topic.

    Returns:
        `rows`, `rejected`, `lengths` ({column: {n, mean, min, median, p95, max}}, with one entry
        for each text of a list) and `topics` ({topic: {rows, question_words, answer_words}}), most
        frequent first.

    Raises:
        DataError: The file is not usable.
    """
    rejects = RejectLog()
    dataset = open_dataset(kind, path, on_reject=rejects, options=options)
    lengths: dict[str, list[np.ndarray]] = {}
    topics: list[pl.DataFrame] = []
    rows = 0
    for frame in dataset.scan():
        rows += frame.height
        for name, words in _word_counts(frame):
            lengths.setdefault(name, []).append(words)
        topics.append(_by_topic(frame))
    return {
        "path": path,
        "kind": dataset.kind,
        "rows": rows,
        "rejected": rejects.count,
        "lengths": {name: _distribution(np.concatenate(parts)) for name, parts in lengths.items()},
        "topics": _topics(pl.concat(topics)),
    }


def _word_counts(frame: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    texts = {
        "question": frame["question"],
        "answer": frame["answers"].explode(),
        "context": frame["contexts"].explode(),
        "document": frame["documents"].explode().struct.field("text"),
    }
    for name, series in texts.items():
        yield name, series.drop_nulls().str.count_matches(r"\S+").to_numpy()


def _distribution(words: np.ndarray) -> dict[str, float]:
    if not len(words):
        return {"n": 0}
    figures: dict[str, float] = {"n": len(words), "mean": round(float(words.mean()), 1)}
    for name, quantile in _QUANTILES:
        figures[name] = float(np.quantile(words, quantile))
    return figures


def _by_topic(frame: pl.DataFrame) -> pl.DataFrame:
    """Sums words by topic within one batch."""
    topic = pl.col("metadata").str.json_path_match("$.topic").fill_null(NO_TOPIC)
    words = pl.col("question").str.count_matches(r"\S+")
    answers = pl.col("answers").list.first().str.count_matches(r"\S+")
    return (
        frame.lazy()
        .select(topic=topic, question=words.cast(pl.Int64), answer=answers.cast(pl.Int64))
        .group_by("topic")
        .agg(
            pl.len().cast(pl.Int64).alias("rows"),
            pl.col("question").sum(),
            pl.col("answer").sum(),
            pl.col("answer").count().cast(pl.Int64).alias("answered"),
        )
        .collect()
    )


def _topics(parts: pl.DataFrame) -> dict[str, dict[str, float]]:
    sums = parts.group_by("topic").sum().sort(["rows", "topic"], descending=[True, False])
    if sums["topic"].to_list() == [NO_TOPIC]:
        return {}
    return {
        row["topic"]: {
            "rows": row["rows"],
            "question_words": round(row["question"] / row["rows"], 1),
            "answer_words": round(row["answer"] / max(1, row["answered"]), 1),
        }
        for row in sums.iter_rows(named=True)
    }

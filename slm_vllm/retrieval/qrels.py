"""Relevance judgements: which documents answer which question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from slm_vllm.datasets.base import BaseDataset
from slm_vllm.datasets.qrels import read_qrels
from slm_vllm.datasets.registry import fetched_path

if TYPE_CHECKING:
    from slm_vllm.config.schema import CorpusConfig

Grades = Mapping[str, int]
"""By document, how relevant it is; what is not there, or is below 1, is not relevant."""

_OF_DATASET = "dataset"


class Qrels:
    """The relevant documents of each question.

    Args:
        by_question: Grades by question_id. None: a row's own documents are the relevant ones, all
            to the same degree.
    """

    def __init__(self, by_question: Mapping[str, Grades] | None = None) -> None:
        self._by_question = by_question

    @property
    def needs_documents(self) -> bool:
        """Whether they are the documents of the rows, which then have to be read."""
        return self._by_question is None

    def of(self, frame: pl.DataFrame) -> list[Grades]:
        """The relevant documents of each canonical row; empty where nobody judged."""
        if self._by_question is not None:
            return [self._by_question.get(name, {}) for name in frame["question_id"].to_list()]
        ids = frame.select(
            pl.col("documents").list.eval(pl.element().struct.field("document_id"))
        ).to_series()
        return [dict.fromkeys(row or (), 1) for row in ids.to_list()]


def find_qrels(dataset: BaseDataset, corpus: CorpusConfig | None, cache_dir: str) -> Qrels:
    """What the searches of a configuration are judged by, beside the answers.

    Args:
        dataset: Asks the questions.
        corpus: Where the documents come from, if not from the dataset.
        cache_dir: Where the copy of a URL is kept.

    Raises:
        DataError: The file of judgements cannot be read.
    """
    if corpus is None or corpus.qrels == _OF_DATASET:
        return Qrels(dataset.qrels())
    if corpus.qrels is None:
        return Qrels({})
    return Qrels(read_qrels(fetched_path(corpus.qrels, cache_dir)))

"""Reranks the best passages with a model that reads question and passage together."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slm_vllm.config.retriever_stages import RerankerConfig
from slm_vllm.errors import ConfigError, MissingExtraError
from slm_vllm.retrieval.base import (
    BaseRetriever,
    SearchResult,
    StagedRetriever,
    check_top_k,
    pad_result,
)
from slm_vllm.retrieval.encoder import find_encoder
from slm_vllm.types import Passage

Pair = tuple[str, Passage]
"""A question and a passage."""


class PairScorer(ABC):
    """Says how well passages fit questions.

    Attributes:
        identity: Equal for scorers that give equal scores.
    """

    identity: str

    @abstractmethod
    def scores(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """A score for each pair, more is better; -inf: none, so that its passage is left out."""

    @abstractmethod
    def close(self) -> None:
        """Frees what it holds."""


class RerankingRetriever(StagedRetriever):
    """Any retriever, its best candidates put into the order of a scorer.

    Scores are the scorer's, so `min_score` is on its scale. Candidates of equal score stay in the
    order of the first search.

    Args:
        first: Finds the candidates.
        config: How many candidates are read.
        scorer: Reads them.
    """

    def __init__(self, first: BaseRetriever, config: RerankerConfig, scorer: PairScorer) -> None:
        super().__init__(first, f"{scorer.identity};{config.candidates}")
        self._config, self._scorer = config, scorer

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`. At least `top_k` candidates are read."""
        found = self._first.search(questions, self._depth(top_k))
        return self._reordered(questions, found, top_k)

    def search_rows(self, rows: pl.DataFrame, top_k: int) -> SearchResult:
        """See `BaseRetriever.search_rows`."""
        found = self._first.search_rows(rows, self._depth(top_k))
        return self._reordered(rows["question"].to_list(), found, top_k)

    def pairs(self, rows: pl.DataFrame, top_k: int) -> list[Pair]:
        """All that is scored by a search for canonical rows."""
        found = self._first.search_rows(rows, self._depth(top_k))
        return self._pairs(rows["question"].to_list(), found)

    def describe(self) -> dict[str, Any]:
        """See `BaseRetriever.describe`; adds the reranker."""
        reranker = {"model": self._config.model, "candidates": self._config.candidates}
        return {**super().describe(), "reranker": reranker}

    def close(self) -> None:
        """Frees the scorer and closes the first retriever."""
        self._scorer.close()
        super().close()

    def _depth(self, top_k: int) -> int:
        check_top_k(top_k)
        return max(self._config.candidates, top_k)

    def _pairs(self, questions: Sequence[str], found: SearchResult) -> list[Pair]:
        keep = found.indices >= 0
        rows, _ = np.nonzero(keep)
        passages = self.passages.take(found.indices[keep])
        return [
            (questions[row], passage) for row, passage in zip(rows.tolist(), passages, strict=True)
        ]

    def _reordered(self, questions: Sequence[str], found: SearchResult, top_k: int) -> SearchResult:
        keep = found.indices >= 0
        if not keep.any():
            return SearchResult.empty(len(questions), top_k)
        scores = self._scorer.scores(self._pairs(questions, found))
        bounds = np.concatenate(([0], np.cumsum(keep.sum(axis=1))))
        flat = found.indices[keep]
        return pad_result(
            [
                _best_first(flat[low:high], scores[low:high], top_k)
                for low, high in itertools.pairwise(bounds)
            ],
            top_k,
        )


class CrossEncoderScorer(PairScorer):
    """A cross-encoder of sentence-transformers, loaded when it is first asked.

    Args:
        config: Names it.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ConfigError: The model cannot be found.
    """

    def __init__(self, config: RerankerConfig) -> None:
        self.identity = config.model
        if find_spec("sentence_transformers") is None:
            raise MissingExtraError("sentence-transformers", "retrieval", "Reranking")
        self._folder = find_encoder(config.model)
        self._model: Any = None
        self._lock = threading.Lock()

    def scores(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """See `PairScorer.scores`."""
        texts = [
            (question, f"{passage.title}\n{passage.text}" if passage.title else passage.text)
            for question, passage in pairs
        ]
        with self._lock:
            if self._model is None:
                self._model = _load(str(self._folder))
            scores = self._model.predict(texts, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(scores, np.float32).reshape(len(pairs))

    def close(self) -> None:
        """Frees the model."""
        with self._lock:
            self._model = None


def _best_first(
    indices: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    order = np.argsort(-scores, kind="stable")[:k]
    order = order[np.isfinite(scores[order])]
    return indices[order], scores[order]


def _load(folder: str) -> Any:
    from sentence_transformers import CrossEncoder

    try:
        model = CrossEncoder(folder)
    except Exception as error:
        raise ConfigError(f"The reranker in {folder} cannot be loaded: {error}") from error
    if model.num_labels != 1:
        raise ConfigError(
            f"The model in {folder} has {model.num_labels} outputs; a reranker has one, the score"
        )
    return model

"""A second look at the best passages, by a model that reads question and passage together."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.config.schema import RerankerConfig
from slm_vllm.errors import ConfigError, MissingExtraError
from slm_vllm.retrieval.base import (
    BaseRetriever,
    SearchResult,
    best_first,
    check_top_k,
    pad_result,
)
from slm_vllm.retrieval.encoder import find_encoder


class RerankingRetriever(BaseRetriever):
    """Any retriever, its best candidates put into the order a cross-encoder gives them.

    Scores are those of the cross-encoder, so `min_score` is on its scale.

    Args:
        first: Finds the candidates.
        config: The cross-encoder and how many candidates it reads.
    """

    def __init__(self, first: BaseRetriever, config: RerankerConfig) -> None:
        settings = f"{first.fingerprint};{config.model};{config.candidates}"
        super().__init__(first.passages, hashlib.sha256(settings.encode()).hexdigest()[:16])
        self.kind = first.kind  # type: ignore[misc]
        self._first, self._config = first, config
        if find_spec("sentence_transformers") is None:
            raise MissingExtraError("sentence-transformers", "retrieval", "Reranking")
        self._folder = find_encoder(config.model)
        self._model: Any = None
        self._lock = threading.Lock()

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`. At least `top_k` candidates are read."""
        check_top_k(top_k)
        found = self._first.search(questions, max(self._config.candidates, top_k))
        return self._reordered(questions, found, top_k)

    def search_rows(self, rows: pl.DataFrame, top_k: int) -> SearchResult:
        """See `BaseRetriever.search_rows`."""
        check_top_k(top_k)
        found = self._first.search_rows(rows, max(self._config.candidates, top_k))
        return self._reordered(rows["question"].to_list(), found, top_k)

    def _reordered(self, questions: Sequence[str], found: SearchResult, top_k: int) -> SearchResult:
        keep = found.indices >= 0
        rows, _ = np.nonzero(keep)
        if len(rows) == 0:
            return SearchResult.empty(len(questions), top_k)
        passages = self.passages.take(found.indices[keep])
        pairs = [
            (questions[row], f"{passage.title}\n{passage.text}" if passage.title else passage.text)
            for row, passage in zip(rows.tolist(), passages, strict=True)
        ]
        scores = self._score(pairs)
        counts = keep.sum(axis=1)
        bounds = np.concatenate(([0], np.cumsum(counts)))
        flat = found.indices[keep]
        return pad_result(
            [
                best_first(flat[low:high], scores[low:high], top_k)
                for low, high in itertools.pairwise(bounds)
            ],
            top_k,
        )

    def describe(self) -> dict[str, Any]:
        """See `BaseRetriever.describe`; adds the cross-encoder."""
        reranker = {"model": self._config.model, "candidates": self._config.candidates}
        return {**self._first.describe(), "fingerprint": self.fingerprint, "reranker": reranker}

    def close(self) -> None:
        """Frees the model and closes the first retriever."""
        with self._lock:
            self._model = None
        self._first.close()

    def _score(self, pairs: list[tuple[str, str]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        with self._lock:
            if self._model is None:
                self._model = _load(str(self._folder))
            scores = self._model.predict(pairs, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(scores, np.float32).reshape(len(pairs))


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

"""The rank-bm25 library, for results comparable with earlier ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from slm_vllm.errors import MissingExtraError
from slm_vllm.retrieval.base import (
    BuildMonitor,
    SearchResult,
    StoredRetriever,
    best_first,
    check_top_k,
    pad_result,
)
from slm_vllm.retrieval.lexical import Analyzer, words_identity
from slm_vllm.retrieval.passage_store import PassageStore

BUILD_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class RankBM25Options:
    """What `retriever.options` of kind `rank_bm25` may hold; see `rank_bm25.BM25Okapi`.

    Attributes:
        k1: How soon repeated words stop counting.
        b: How much long passages are held back.
        epsilon: Share of the mean IDF that words found in over half of the passages get.
    """

    k1: Annotated[float, Field(ge=0)] = 1.5
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    epsilon: Annotated[float, Field(ge=0)] = 0.25


class RankBM25Retriever(StoredRetriever):
    """`rank_bm25.BM25Okapi` over the words that `bm25` uses.

    The index holds the words of each passage; the library's own structures are rebuilt from them
    at the first search. Slow and large by design: for parity, not for work.
    """

    kind: ClassVar[str] = "rank_bm25"
    options_class: ClassVar[type] = RankBM25Options

    def __init__(
        self, passages: PassageStore, fingerprint: str, folder: Path, options: RankBM25Options
    ) -> None:
        super().__init__(passages, fingerprint, folder, options)
        self._path = folder / "words.arrow"
        self._options = options
        self._okapi: Any = None
        self._lock = threading.Lock()
        _import_library()

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`.

        Scores can be negative. Passages at exactly 0 are not results: the library gives 0 to
        passages without any word of the question, and to those whose only such word is in exactly
        half of all passages.
        """
        check_top_k(top_k)
        okapi = self._library()
        rows = []
        for words in Analyzer().words(questions).to_list():
            scores = okapi.get_scores(words).astype(np.float32)
            matching = np.flatnonzero(scores)
            rows.append(best_first(matching, scores[matching], top_k))
        return pad_result(rows, top_k)

    def _library(self) -> Any:
        with self._lock:
            if self._okapi is None:
                words = pl.read_ipc(self._path)["words"].to_list()
                options = self._options
                self._okapi = _import_library()(
                    words, k1=options.k1, b=options.b, epsilon=options.epsilon
                )
            return self._okapi

    @classmethod
    def passages_identity(cls, passages: PassageStore) -> dict[str, Any]:
        """See `words_identity`."""
        return words_identity(passages)

    @classmethod
    def build(
        cls, folder: Path, passages: PassageStore, options: Any, monitor: BuildMonitor
    ) -> None:
        """Writes the words of each passage."""
        _import_library()
        parts = []
        for start, texts in passages.iter_texts(BUILD_BATCH):
            parts.append(Analyzer().words(texts))
            monitor.report("splitting words", start + len(texts), len(passages))
        pl.concat(parts).to_frame().write_ipc(folder / "words.arrow", compression="uncompressed")


def _import_library() -> Any:
    try:
        from rank_bm25 import BM25Okapi
    except ImportError:
        raise MissingExtraError("rank-bm25", "retrieval", "The retriever rank_bm25") from None
    return BM25Okapi

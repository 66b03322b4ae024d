"""BM25 as Lucene computes it, over a memory-mapped inverted index."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from slm_vllm.parallel import usable_cores
from slm_vllm.retrieval.base import (
    SEARCH_ONLY,
    BuildMonitor,
    SearchResult,
    StoredRetriever,
    check_top_k,
)
from slm_vllm.retrieval.bm25_build import build_postings
from slm_vllm.retrieval.bm25_search import PostingsSearcher
from slm_vllm.retrieval.lexical import (
    Analyzer,
    Stemmer,
    Stopwords,
    Vocabulary,
    look_up,
    words_identity,
)
from slm_vllm.retrieval.passage_store import PassageStore
from slm_vllm.retrieval.postings import TERMS, Postings

MOST_BUILDING = 8
"""Threads of a build, however many cores there are. Bounds its memory."""


@dataclass(frozen=True, slots=True)
class BM25Options:
    """What `retriever.options` of kind `bm25` may hold.

    Attributes:
        k1: How soon repeated words stop counting.
        b: How much long passages are held back, 0 not at all, 1 in proportion.
        stopwords: `english` leaves out Lucene's 33 stop words.
        stemmer: `english` cuts words to Snowball stems (needs PyStemmer).
        threads: Questions searched at once; null: one for each core.
        kernel: `numba` or `numpy`; `auto`: numba once there is enough to do. Same results.
    """

    k1: Annotated[float, Field(ge=0)] = 1.5
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    stopwords: Stopwords = "none"
    stemmer: Stemmer = "none"
    threads: Annotated[int, Field(ge=1)] | None = field(default=None, metadata=SEARCH_ONLY)
    kernel: Literal["auto", "numba", "numpy"] = field(default="auto", metadata=SEARCH_ONLY)


class BM25Retriever(StoredRetriever):
    """BM25 with Lucene's IDF, which is never negative.

        score(q, p) = sum over words w of q: idf(w) * tf / (tf + k1 * (1 - b + b * |p| / avg))
        idf(w) = ln(1 + (N - df + 0.5) / (df + 0.5))

    (Kamphuis et al., "Which BM25 do you mean?", ECIR 2020, the row "Lucene (accurate)"). A word
    that is twice in the question counts twice. Passages without any word of the question are not
    results, so a question of unknown words alone finds nothing.
    """

    kind: ClassVar[str] = "bm25"
    options_class: ClassVar[type] = BM25Options
    resumable: ClassVar[bool] = True
    layout: ClassVar[int] = 2

    def __init__(
        self,
        passages: PassageStore,
        fingerprint: str,
        folder: Path,
        options: BM25Options,
    ) -> None:
        super().__init__(passages, fingerprint, folder, options)
        postings = Postings.open(folder)
        if postings.n_passages != len(passages):
            raise ValueError(f"{postings.n_passages} passages are indexed of {len(passages)}")
        self._analyzer = Analyzer(options.stopwords, options.stemmer)
        self._searcher = PostingsSearcher(
            postings, options.threads or usable_cores(), options.kernel
        )
        self._terms_path = folder / TERMS
        self._vocabulary: Vocabulary | None = None
        self._lock = threading.Lock()

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`. Scores are above 0."""
        check_top_k(top_k)
        queries = look_up(questions, self._analyzer, self._terms())
        depth = min(top_k, len(self.passages))
        return self._searcher.search(queries, depth).padded(top_k)

    def _terms(self) -> Vocabulary:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(pl.read_ipc(self._terms_path)["term"])
            return self._vocabulary

    @classmethod
    def passages_identity(cls, passages: PassageStore) -> dict[str, Any]:
        """See `words_identity`."""
        return words_identity(passages)

    @classmethod
    def build(
        cls, folder: Path, passages: PassageStore, options: BM25Options, monitor: BuildMonitor
    ) -> None:
        """Counts and weighs the words of all passages; see `build_postings`."""
        analyzer = Analyzer(options.stopwords, options.stemmer)
        threads = min(options.threads or usable_cores(), MOST_BUILDING)
        build_postings(folder, passages, analyzer, (options.k1, options.b), threads, monitor)

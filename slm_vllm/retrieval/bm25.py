"""BM25 as Lucene computes it, over a memory-mapped inverted index."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from slm_vllm.retrieval.base import (
    SEARCH_ONLY,
    BuildMonitor,
    SearchResult,
    StoredRetriever,
    check_top_k,
)
from slm_vllm.retrieval.bm25_search import PostingsSearcher
from slm_vllm.retrieval.lexical import (
    Analyzer,
    Stemmer,
    Stopwords,
    Vocabulary,
    count_terms,
    look_up,
    words_identity,
)
from slm_vllm.retrieval.passage_store import PassageStore
from slm_vllm.retrieval.postings import Postings

BUILD_BATCH = 16_384
"""Passages tokenised at once during a build. Bounds its memory."""


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

    def __init__(
        self,
        passages: PassageStore,
        fingerprint: str,
        folder: Path,
        options: BM25Options,
    ) -> None:
        super().__init__(passages, fingerprint, folder, options)
        postings = Postings(
            pointers=np.load(folder / "pointers.npy"),
            passages=_map(folder / "passages.npy"),
            weights=_map(folder / "weights.npy"),
            bounds=np.load(folder / "bounds.npy"),
            n_passages=len(passages),
        )
        if len(postings.passages) != postings.pointers[-1]:
            raise ValueError("the number of postings is not what the pointers say")
        self._analyzer = Analyzer(options.stopwords, options.stemmer)
        self._searcher = PostingsSearcher(
            postings, options.threads or os.cpu_count() or 1, options.kernel
        )
        self._terms_path = folder / "terms.arrow"
        self._vocabulary: Vocabulary | None = None
        self._lock = threading.Lock()

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`. Scores are above 0."""
        check_top_k(top_k)
        queries = look_up(questions, self._analyzer, self._terms())
        depth = min(top_k, len(self.passages))
        found = self._searcher.search(queries, depth)
        if depth == top_k:
            return found
        result = SearchResult.empty(len(questions), top_k)
        result.indices[:, :depth] = found.indices
        result.scores[:, :depth] = found.scores
        return result

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
        """Writes vocabulary, pointers, postings and weights."""
        analyzer = Analyzer(options.stopwords, options.stemmer)
        collected = _collect(passages, analyzer, monitor)
        n_terms = len(collected.terms)
        frequency = np.zeros(n_terms, np.int64)
        for batch in collected.batches:
            np.add.at(frequency, *_runs(batch.term))
        pointers = np.concatenate(([0], np.cumsum(frequency)))
        np.save(folder / "pointers.npy", pointers)
        n = len(passages)
        idf = np.log1p((n - frequency + 0.5) / (frequency + 0.5))
        lengths = collected.lengths
        norm = options.k1 * (1 - options.b + options.b * lengths / max(lengths.mean(), 1e-9))
        _write_postings(folder, collected.batches, pointers, idf, norm, monitor)
        collected.terms.to_frame().write_ipc(folder / "terms.arrow", compression="uncompressed")


@dataclass(slots=True)
class _Batch:
    """Postings of neighbouring passages, ordered by term, then passage."""

    term: NDArray[np.int32]
    passage: NDArray[np.int32]
    count: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Collected:
    terms: pl.Series
    batches: list[_Batch]
    lengths: NDArray[np.int64]


def _collect(passages: PassageStore, analyzer: Analyzer, monitor: BuildMonitor) -> _Collected:
    """Counts all terms and gives each its place in the sorted vocabulary."""
    batches, vocabularies, lengths = [], [], []
    for start, texts in passages.iter_texts(BUILD_BATCH):
        counted = count_terms(texts, analyzer)
        batches.append(
            _Batch(counted.term.astype(np.int32), counted.passage + start, counted.count)
        )
        vocabularies.append(counted.terms)
        lengths.append(counted.lengths)
        monitor.report("counting words", start + len(texts), len(passages))
    everything = pl.concat(vocabularies) if vocabularies else pl.Series("word", [], pl.String)
    terms = everything.unique().sort().alias("term").set_sorted()
    for batch, local in zip(batches, vocabularies, strict=True):
        # Both are sorted, so the order by term stays as it is.
        place = pl.Series(terms.search_sorted(local)).to_numpy().astype(np.int32)
        batch.term = place[batch.term]
    return _Collected(terms, batches, np.concatenate(lengths or [np.zeros(0, np.int64)]))


def _runs(values: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Distinct values of a sorted array and the length of each run."""
    begin = np.flatnonzero(np.diff(values, prepend=-1))
    return values[begin], np.diff(np.append(begin, len(values)))


def _write_postings(
    folder: Path,
    batches: list[_Batch],
    pointers: NDArray[np.int64],
    idf: NDArray[np.float64],
    norm: NDArray[np.float64],
    monitor: BuildMonitor,
) -> None:
    """Places the batches one after the other behind each term's pointer.

    Batches come in the order of their passages, so each term's postings end up ascending.
    """
    total = int(pointers[-1])
    where = np.empty(total, np.int32)
    weights = np.empty(total, np.float32)
    bounds = np.zeros(len(idf), np.float32)
    free = pointers[:-1].copy()
    n_batches = len(batches)
    while batches:
        batch = batches.pop(0)
        terms, lengths = _runs(batch.term)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = np.repeat(free[terms], lengths) + (np.arange(len(batch.term)) - first)
        weight = (idf[batch.term] * batch.count / (batch.count + norm[batch.passage])).astype(
            np.float32
        )
        where[place] = batch.passage
        weights[place] = weight
        if len(terms):
            highest = np.maximum.reduceat(weight, np.cumsum(lengths) - lengths)
            bounds[terms] = np.maximum(bounds[terms], highest)
        free[terms] += lengths
        monitor.report("weighing words", n_batches - len(batches), n_batches)
    np.save(folder / "passages.npy", where)
    np.save(folder / "weights.npy", weights)
    np.save(folder / "bounds.npy", bounds)


def _map(path: Path) -> NDArray[Any]:
    mapped: NDArray[Any] = np.load(path, mmap_mode="r")
    return mapped

"""Exact top-k search over an inverted index.

The kernel is compiled by numba. Where numba is not installed, and as long as there is too little to
do to pay for loading it, numpy adds all terms of a question up, with the same bits as result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec

import numpy as np

from slm_vllm.retrieval.base import SearchResult, best_first
from slm_vllm.retrieval.lexical import QueryTerms
from slm_vllm.retrieval.postings import Postings

NUMBA_PAYS = 20_000_000
"""Work from which loading numba (about half a second, and once per installation a few seconds of
compiling) pays: the sum over questions of passages + `_PER_QUESTION`."""

_THREADS_PAY = 100_000  # passages from which numpy gains from a second thread

_KEPT = 10_000_000  # postings that numpy weighs once for many questions: 120 MB at most

_PER_QUESTION = 20_000  # what numpy's calls cost for one question, in passages

Kernel = Callable[[Postings, QueryTerms, int, int, int, SearchResult], None]


class PostingsSearcher:
    """Searches postings with several threads.

    Args:
        postings: The index.
        threads: How many questions are worked on at once.
        kernel: `numpy`, `numba`, or `auto` for whichever is faster for the work at hand.
    """

    def __init__(self, postings: Postings, threads: int, kernel: str = "auto") -> None:
        self._postings = postings
        self._threads = max(threads, 1)
        self._choice = kernel
        self._numba: Kernel | None = None
        self._lock = threading.Lock()
        self._asked = 0

    def search(self, queries: QueryTerms, k: int) -> SearchResult:
        """The k best passages of each question; passages with none of its words never appear."""
        n = len(queries.pointers) - 1
        result = SearchResult.empty(n, k)
        kernel = self._kernel(n)
        # On short arrays numpy's threads wait for the interpreter lock more than they work.
        small = kernel is search_numpy and self._postings.n_passages < _THREADS_PAY
        threads = 1 if small else self._threads
        chunk = max(1, min(256, -(-n // threads)))
        spans = [(low, min(low + chunk, n)) for low in range(0, n, chunk)]
        if threads == 1 or len(spans) == 1:
            for low, high in spans:
                kernel(self._postings, queries, k, low, high, result)
            return result
        with ThreadPoolExecutor(min(threads, len(spans))) as pool:
            jobs = [
                pool.submit(kernel, self._postings, queries, k, low, high, result)
                for low, high in spans
            ]
            for job in jobs:
                job.result()
        return result

    def _kernel(self, n_questions: int) -> Kernel:
        if self._choice == "numpy":
            return search_numpy
        with self._lock:
            self._asked += n_questions * (self._postings.n_passages + _PER_QUESTION)
            wanted = self._choice == "numba" or self._asked >= NUMBA_PAYS
            if self._numba is None and wanted:
                self._numba = _load_numba() if find_spec("numba") else search_numpy
            return self._numba or search_numpy


def _load_numba() -> Kernel:
    from slm_vllm.retrieval.bm25_numba import search_numba

    return search_numba


def search_numpy(
    postings: Postings, queries: QueryTerms, k: int, low: int, high: int, result: SearchResult
) -> None:
    """Fills rows `low` to `high` of a result."""
    scores = np.zeros(postings.n_passages, np.float32)
    gains = postings.highest(queries.terms) * queries.counts
    weighted = lru_cache(_KEPT // postings.n_passages)(postings.term)
    for row in range(low, high):
        span = slice(int(queries.pointers[row]), int(queries.pointers[row + 1]))
        # In the order in which the compiled kernel adds: sums of floats depend on it.
        order = np.argsort(-gains[span], kind="stable")
        terms, counts = queries.terms[span][order].tolist(), queries.counts[span][order]
        for term, count in zip(terms, counts, strict=True):
            passages, weights = weighted(term)
            scores[passages] += weights * count
        threshold = np.float32(0)
        if len(scores) > k:
            threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        found = np.flatnonzero(scores >= threshold) if threshold > 0 else np.flatnonzero(scores)
        indices, best = best_first(found, scores[found], k)
        result.indices[row, : len(indices)] = indices
        result.scores[row, : len(best)] = best
        scores[:] = 0

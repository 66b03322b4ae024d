"""Exact top-k search over an eagerly scored inverted index.

The terms of a question are added up from the one that can contribute most to the one that can
contribute least. As soon as the terms still to come cannot lift a passage not seen so far into the
top k, they are only looked up in the passages that are still in the race (MaxScore: Turtle and
Flood, "Query evaluation: strategies and optimizations", 1995). For questions this skips the long
posting lists of words such as "the" and "who". The result is that of the full sum.

Two implementations give the same bits: numpy, and numba where it is installed and there is enough
to do to pay for loading it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from slm_vllm.retrieval.base import SearchResult, best_first
from slm_vllm.retrieval.lexical import QueryTerms

NUMBA_PAYS = 20_000_000
"""Work from which loading numba (about half a second, and once per installation a few seconds of
compiling) pays: the sum over questions of passages + `_PER_QUESTION`."""

_FEW_POSTINGS = 100_000  # below this, leaving work out costs numpy more than it saves

_THREADS_PAY = 100_000  # passages from which numpy gains from a second thread

_PER_QUESTION = 20_000  # what numpy's calls cost for one question, in passages

# Floats are summed in another order for the bounds than for the scores.
_SAFETY = 1 - 1e-5


@dataclass(frozen=True, slots=True)
class Postings:
    """An inverted index with the finished weight of each term in each passage.

    Attributes:
        pointers: int64 (n_terms + 1,), where each term's postings begin.
        passages: int32 (n,), passages of each term in ascending order.
        weights: float32 (n,), what the term adds to the passage's score, above 0.
        bounds: float32 (n_terms,), the largest weight of each term.
        n_passages: Passages in all.
    """

    pointers: NDArray[np.int64]
    passages: NDArray[np.int32]
    weights: NDArray[np.float32]
    bounds: NDArray[np.float32]
    n_passages: int


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
    for row in range(low, high):
        span = slice(int(queries.pointers[row]), int(queries.pointers[row + 1]))
        found = _search_one(postings, queries.terms[span], queries.counts[span], k, scores)
        result.indices[row, : len(found[0])] = found[0]
        result.scores[row, : len(found[1])] = found[1]


def _search_one(
    postings: Postings,
    terms: NDArray[np.int64],
    counts: NDArray[np.float32],
    k: int,
    scores: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Adds terms up in `scores`, which is all zero before and after."""
    if (postings.pointers[terms + 1] - postings.pointers[terms]).sum() < _FEW_POSTINGS:
        return _search_plainly(postings, terms, counts, k, scores)
    gains = postings.bounds[terms] * counts
    order = np.argsort(-gains, kind="stable")
    remaining = np.append(np.cumsum(gains[order][::-1])[::-1], np.float32(0))
    lengths = (postings.pointers[terms + 1] - postings.pointers[terms])[order]
    ahead = np.cumsum(lengths[::-1])[::-1]
    seen = np.zeros(0, np.int32)
    for step, at in enumerate(order.tolist()):
        # A threshold cannot be above what was added so far.
        reachable = remaining[step] < remaining[0] - remaining[step]
        if len(seen) > k and reachable and ahead[step] > len(seen):
            threshold = np.partition(scores[seen], len(seen) - k)[len(seen) - k]
            if remaining[step] < threshold * _SAFETY:
                return _finish(postings, terms, counts, k, scores, seen, order[step:], threshold)
        begin, end = postings.pointers[terms[at]], postings.pointers[terms[at] + 1]
        passages = postings.passages[begin:end]
        before = scores[passages]
        seen = np.concatenate((seen, passages[before == 0]))
        scores[passages] = before + postings.weights[begin:end] * counts[at]
    return _finish(postings, terms, counts, k, scores, seen, order[:0], np.float32(0))


def _search_plainly(
    postings: Postings,
    terms: NDArray[np.int64],
    counts: NDArray[np.float32],
    k: int,
    scores: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Adds all terms up, in the same order as `_search_one`; cheapest for short lists."""
    order = np.argsort(-(postings.bounds[terms] * counts), kind="stable")
    terms, counts = terms[order], counts[order]
    first, last = postings.pointers[terms].tolist(), postings.pointers[terms + 1].tolist()
    for begin, end, count in zip(first, last, counts, strict=True):
        scores[postings.passages[begin:end]] += postings.weights[begin:end] * count
    threshold = np.float32(0)
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= threshold) if threshold > 0 else np.flatnonzero(scores)
    best = best_first(found, scores[found], k)
    scores[:] = 0
    return best


def _finish(
    postings: Postings,
    terms: NDArray[np.int64],
    counts: NDArray[np.float32],
    k: int,
    scores: NDArray[np.float32],
    seen: NDArray[np.int32],
    rest: NDArray[np.int64],
    threshold: np.float32,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Adds the rest of the terms to the candidates alone, then picks the best."""
    found = scores[seen]
    scores[seen] = 0
    left = np.float32((postings.bounds[terms[rest]] * counts[rest]).sum())
    race = found + left >= threshold * _SAFETY
    candidates, found = seen[race], found[race]
    for at in rest.tolist():
        begin, end = postings.pointers[terms[at]], postings.pointers[terms[at] + 1]
        if begin == end:
            continue
        passages = postings.passages[begin:end]
        position = np.minimum(np.searchsorted(passages, candidates), len(passages) - 1)
        present = passages[position] == candidates
        gain = postings.weights[begin + position] * counts[at]
        found = np.where(present, found + gain, found)
    return best_first(candidates.astype(np.int64), found, k)

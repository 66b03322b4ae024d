"""The kernel of bm25, compiled once per installation, then cached.

The terms of a question are added up from the one that can contribute most to the one that can
contribute least. As soon as the terms still to come cannot lift a passage not seen so far into the
top k, they are only looked up in the passages that are still in the race (MaxScore: Turtle and
Flood, "Query evaluation: strategies and optimizations", 1995). For questions this skips the long
posting lists of words such as "the" and "who". The result is that of the full sum.
"""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped,import-not-found,unused-ignore]

from slm_vllm.retrieval.base import SearchResult
from slm_vllm.retrieval.lexical import QueryTerms
from slm_vllm.retrieval.postings import Postings

# Floats are summed in another order for the bounds than for the scores.
_SAFETY = 1 - 1e-5


def search_numba(
    postings: Postings, queries: QueryTerms, k: int, low: int, high: int, result: SearchResult
) -> None:
    """Fills rows `low` to `high` of a result. Runs without the interpreter lock."""
    # A memory-mapped array is a subclass of ndarray, for which numba would compile a second time.
    _search_rows(
        np.asarray(postings.pointers),
        np.asarray(postings.passages),
        np.asarray(postings.weights),
        np.asarray(postings.bounds),
        postings.n_passages,
        queries.pointers,
        queries.terms,
        queries.counts,
        k,
        low,
        high,
        result.indices,
        result.scores,
    )


@njit(cache=True, nogil=True)
def _worse(score_a, index_a, score_b, index_b):  # type: ignore[no-untyped-def]
    """Whether a is ranked behind b."""
    return score_a < score_b or (score_a == score_b and index_a > index_b)


@njit(cache=True, nogil=True)
def _sift_down(heap_scores, heap_indices, size, root):  # type: ignore[no-untyped-def]
    """Restores the heap whose root is the worst of the best."""
    while True:
        child = 2 * root + 1
        if child >= size:
            return
        right = child + 1
        if right < size and _worse(
            heap_scores[right], heap_indices[right], heap_scores[child], heap_indices[child]
        ):
            child = right
        if not _worse(
            heap_scores[child], heap_indices[child], heap_scores[root], heap_indices[root]
        ):
            return
        heap_scores[root], heap_scores[child] = heap_scores[child], heap_scores[root]
        heap_indices[root], heap_indices[child] = heap_indices[child], heap_indices[root]
        root = child


@njit(cache=True, nogil=True)
def _best(candidates, n, scores, k, heap_scores, heap_indices):  # type: ignore[no-untyped-def]
    """Keeps the k best of n candidates in the heap and returns how many there are."""
    size = 0
    for i in range(n):
        index = candidates[i]
        score = scores[index]
        if size < k:
            at = size
            size += 1
            heap_scores[at] = score
            heap_indices[at] = index
            while at > 0:
                parent = (at - 1) // 2
                if not _worse(
                    heap_scores[at], heap_indices[at], heap_scores[parent], heap_indices[parent]
                ):
                    break
                heap_scores[at], heap_scores[parent] = heap_scores[parent], heap_scores[at]
                heap_indices[at], heap_indices[parent] = heap_indices[parent], heap_indices[at]
                at = parent
        elif _worse(heap_scores[0], heap_indices[0], score, index):
            heap_scores[0] = score
            heap_indices[0] = index
            _sift_down(heap_scores, heap_indices, size, 0)
    return size


@njit(cache=True, nogil=True)
def _add_to_candidates(  # type: ignore[no-untyped-def]
    passages, weights, begin, end, count, candidates, n, scores
):
    """Adds one term to the candidates, by whichever of two ways is cheaper."""
    if end - begin < 16 * n:
        # The scores of other passages are spoilt by this; they are not looked at again.
        for p in range(begin, end):
            scores[passages[p]] += weights[p] * count
        return
    for i in range(n):
        passage = candidates[i]
        left, right = begin, end
        while left < right:
            middle = (left + right) // 2
            if passages[middle] < passage:
                left = middle + 1
            else:
                right = middle
        if left < end and passages[left] == passage:
            scores[passage] += weights[left] * count


@njit(cache=True, nogil=True)
def _rank_terms(terms, counts, bounds, pointers):  # type: ignore[no-untyped-def]
    """Terms by what they can add, the most first; what all from each on can add; their postings."""
    n = len(terms)
    gains = np.empty(n, np.float32)
    order = np.empty(n, np.int64)
    for j in range(n):
        gains[j] = bounds[terms[j]] * counts[j]
        at = j
        while at > 0 and gains[order[at - 1]] < gains[j]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = j
    remaining = np.zeros(n + 1, np.float32)
    ahead = np.zeros(n + 1, np.int64)
    for j in range(n - 1, -1, -1):
        term = terms[order[j]]
        remaining[j] = remaining[j + 1] + gains[order[j]]
        ahead[j] = ahead[j + 1] + pointers[term + 1] - pointers[term]
    return order, remaining, ahead


@njit(cache=True, nogil=True)
def _search_rows(  # type: ignore[no-untyped-def]
    pointers,
    passages,
    weights,
    bounds,
    n_passages,
    query_pointers,
    query_terms,
    query_counts,
    k,
    low,
    high,
    out_indices,
    out_scores,
):
    scores = np.zeros(n_passages, np.float32)
    # One place more: a passage is written down before it is known whether it is new.
    seen = np.empty(n_passages + 1, np.int32)
    heap_scores = np.empty(k, np.float32)
    heap_indices = np.empty(k, np.int32)
    for row in range(low, high):
        terms = query_terms[query_pointers[row] : query_pointers[row + 1]]
        counts = query_counts[query_pointers[row] : query_pointers[row + 1]]
        order, remaining, ahead = _rank_terms(terms, counts, bounds, pointers)
        n = 0
        growing = True
        threshold = np.float32(0)
        for step in range(len(terms)):
            # A threshold cannot be above what was added so far. Finding it costs about as much as
            # adding the candidates again, and pays by what need not be added.
            if n > k and remaining[step] < remaining[0] - remaining[step] and ahead[step] > n:
                size = _best(seen, n, scores, k, heap_scores, heap_indices)
                threshold = max(threshold, heap_scores[0])
                if remaining[step] < threshold * _SAFETY:
                    growing = False
                    n_left = 0
                    for i in range(n):
                        passage = seen[i]
                        seen[n_left] = passage
                        n_left += scores[passage] + remaining[step] >= threshold * _SAFETY
                    n = n_left
            term = terms[order[step]]
            count = counts[order[step]]
            begin, end = pointers[term], pointers[term + 1]
            if not growing:
                _add_to_candidates(passages, weights, begin, end, count, seen, n, scores)
                continue
            for p in range(begin, end):
                passage = passages[p]
                score = scores[passage]
                seen[n] = passage
                n += score == 0
                scores[passage] = score + weights[p] * count
        size = _best(seen, n, scores, k, heap_scores, heap_indices)
        while size > 0:
            size -= 1
            out_indices[row, size] = heap_indices[0]
            out_scores[row, size] = heap_scores[0]
            heap_scores[0] = heap_scores[size]
            heap_indices[0] = heap_indices[size]
            _sift_down(heap_scores, heap_indices, size, 0)
        scores[:] = 0

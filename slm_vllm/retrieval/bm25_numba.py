"""The compiled form of `bm25_kernel.search_numpy`. Compiled once per installation, then cached."""

from __future__ import annotations

import numpy as np
from numba import njit  # type: ignore[import-untyped,import-not-found,unused-ignore]

from slm_vllm.retrieval.base import SearchResult
from slm_vllm.retrieval.bm25_kernel import _SAFETY, Postings
from slm_vllm.retrieval.lexical import QueryTerms


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
def _best(candidates, scores, n, k, heap_scores, heap_indices):  # type: ignore[no-untyped-def]
    """Keeps the k best in the heap and returns how many there are."""
    size = 0
    for i in range(n):
        index = candidates[i]
        score = scores[i]
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
    seen = np.empty(n_passages, np.int32)
    found = np.empty(n_passages, np.float32)
    heap_scores = np.empty(k, np.float32)
    heap_indices = np.empty(k, np.int32)
    for row in range(low, high):
        first = query_pointers[row]
        n_terms = query_pointers[row + 1] - first
        gains = np.empty(n_terms, np.float32)
        for j in range(n_terms):
            gains[j] = bounds[query_terms[first + j]] * query_counts[first + j]
        order = np.argsort(-gains, kind="mergesort")
        remaining = np.zeros(n_terms + 1, np.float32)
        for j in range(n_terms - 1, -1, -1):
            remaining[j] = remaining[j + 1] + gains[order[j]]

        n_seen = 0
        step = 0
        threshold = np.float32(0)
        while step < n_terms:
            term = query_terms[first + order[step]]
            count = query_counts[first + order[step]]
            begin, end = pointers[term], pointers[term + 1]
            # Finding the threshold costs about as much as adding the passages seen so far again.
            if n_seen >= k and end - begin > n_seen // 2:
                for i in range(n_seen):
                    found[i] = scores[seen[i]]
                size = _best(seen, found, n_seen, k, heap_scores, heap_indices)
                threshold = heap_scores[0] if size == k else np.float32(0)
                if remaining[step] < threshold * _SAFETY:
                    break
            for p in range(begin, end):
                passage = passages[p]
                if scores[passage] == 0:
                    seen[n_seen] = passage
                    n_seen += 1
                scores[passage] += weights[p] * count
            step += 1

        # Only passages that can still reach the top k stay in the race.
        n_left = 0
        for i in range(n_seen):
            passage = seen[i]
            score = scores[passage]
            scores[passage] = 0
            if step == n_terms or score + remaining[step] >= threshold * _SAFETY:
                seen[n_left] = passage
                found[n_left] = score
                n_left += 1
        while step < n_terms:
            term = query_terms[first + order[step]]
            count = query_counts[first + order[step]]
            begin, end = pointers[term], pointers[term + 1]
            for i in range(n_left):
                passage = seen[i]
                left, right = begin, end
                while left < right:
                    middle = (left + right) // 2
                    if passages[middle] < passage:
                        left = middle + 1
                    else:
                        right = middle
                if left < end and passages[left] == passage:
                    found[i] += weights[left] * count
            step += 1

        size = _best(seen, found, n_left, k, heap_scores, heap_indices)
        while size > 0:
            size -= 1
            out_indices[row, size] = heap_indices[0]
            out_scores[row, size] = heap_scores[0]
            heap_scores[0] = heap_scores[size]
            heap_indices[0] = heap_indices[size]
            _sift_down(heap_scores, heap_indices, size, 0)

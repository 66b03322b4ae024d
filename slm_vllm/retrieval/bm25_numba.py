"""The kernel of bm25, compiled once per installation, then cached.

Passages are looked at block by block, so that all scores at work fit into a core's cache. Within a
block the terms of a question are added up from the one that can contribute most in any passage to
the one that can contribute least. As soon as the terms still to come cannot lift a passage of the
block not seen so far into the top k of all blocks before, they are only looked up in the passages
that are still in the race (MaxScore: Turtle and Flood, "Query evaluation: strategies and
optimizations", 1995; bounds for each block: Ding and Suel, "Faster top-k document retrieval using
block-max indexes", 2011). For questions this skips the long posting lists of words such as "the"
and "who". The result is that of the full sum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit  # type: ignore[import-untyped,import-not-found,unused-ignore]

from slm_vllm.retrieval.base import SearchResult
from slm_vllm.retrieval.lexical import QueryTerms
from slm_vllm.retrieval.postings import Postings

# Floats are summed in another order for the bounds than for the scores.
_SAFETY = 1 - 1e-5

Array = Any  # numba finds out


class _Query(NamedTuple):
    """The terms of a question, that which can add most to a passage first.

    Attributes:
        terms: Their positions in the vocabulary.
        counts: Their occurrences in the question.
        idfs: Their inverse document frequencies.
        tables: What each adds to a passage, see `_tabulate`.
        cells: The sizes of these tables.
        entries: The next of the blocks that each is in.
        begins: Where its postings in the block at hand begin.
        ends: Where they end.
        gains: The most it can add to a passage of that block.
    """

    terms: Array
    counts: Array
    idfs: Array
    tables: Array
    cells: Array
    entries: Array
    begins: Array
    ends: Array
    gains: Array


class _Work(NamedTuple):
    """Arrays that are used again from block to block.

    Attributes:
        scores: Of all passages of a block; 0 before and after it.
        seen: Its passages that have a score.
        left: Those of them that are still in the race.
        heap_scores: The best of all blocks.
        heap_indices: Their passages.
        spare_scores: A second heap.
        spare_indices: And its passages.
    """

    scores: Array
    seen: Array
    left: Array
    heap_scores: Array
    heap_indices: Array
    spare_scores: Array
    spare_indices: Array


def search_numba(
    postings: Postings, queries: QueryTerms, k: int, low: int, high: int, result: SearchResult
) -> None:
    """Fills rows `low` to `high` of a result. Runs without the interpreter lock."""
    terms = (queries.pointers, queries.terms, queries.counts, postings.idf(queries.terms))
    _search_rows(postings, *terms, k, low, high, result.indices, result.scores)


@njit(cache=True, nogil=True, error_model="numpy")
def _worse(score_a, index_a, score_b, index_b):  # type: ignore[no-untyped-def]
    """Whether a is ranked behind b."""
    return score_a < score_b or (score_a == score_b and index_a > index_b)


@njit(cache=True, nogil=True, error_model="numpy")
def _sift_down(heap_scores, heap_indices, size):  # type: ignore[no-untyped-def]
    """Restores a heap, whose root is the worst of the best, after that was replaced."""
    root = 0
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


@njit(cache=True, nogil=True, error_model="numpy")
def _push(heap_scores, heap_indices, size, score, index):  # type: ignore[no-untyped-def]
    """Offers a passage to the heap of the best and returns how many it has then."""
    if size == len(heap_scores):
        if _worse(heap_scores[0], heap_indices[0], score, index):
            heap_scores[0] = score
            heap_indices[0] = index
            _sift_down(heap_scores, heap_indices, size)
        return size
    at = size
    heap_scores[at] = score
    heap_indices[at] = index
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(heap_scores[at], heap_indices[at], heap_scores[parent], heap_indices[parent]):
            break
        heap_scores[at], heap_scores[parent] = heap_scores[parent], heap_scores[at]
        heap_indices[at], heap_indices[parent] = heap_indices[parent], heap_indices[at]
        at = parent
    return size + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _kth_best(candidates, n, scores, heap_scores, heap_indices):  # type: ignore[no-untyped-def]
    """The k-th best score of more than k candidates."""
    size = 0
    for i in range(n):
        size = _push(heap_scores, heap_indices, size, scores[candidates[i]], candidates[i])
    return heap_scores[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _rank_terms(blocks, bounds, terms, counts):  # type: ignore[no-untyped-def]
    """The terms by what they can add to a passage, the most first."""
    n = len(terms)
    gains = np.empty(n, np.float32)
    order = np.empty(n, np.int64)
    for j in range(n):
        highest = np.float32(0)
        for e in range(blocks[terms[j]], blocks[terms[j] + 1]):
            highest = max(highest, bounds[e])
        gains[j] = highest * counts[j]
        at = j
        while at > 0 and gains[order[at - 1]] < gains[j]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = j
    return order


@njit(cache=True, nogil=True, error_model="numpy")
def _gain(tf, length, idf, count, norms, table, n_cells):  # type: ignore[no-untyped-def]
    """What a term that stands tf times in a passage adds to its score."""
    cell = (np.int64(tf) - 1) * len(norms) + length
    if cell < n_cells:
        return table[cell]
    frequency = np.float64(tf)
    return np.float32(idf * frequency / (frequency + norms[length])) * count


@njit(cache=True, nogil=True, error_model="numpy")
def _tabulate(table, n_postings, idf, count, norms):  # type: ignore[no-untyped-def]
    """Fills a table of gains by occurrences and length; returns its size, 0 if it does not pay."""
    if n_postings < 2 * len(table):
        return 0
    for cell in range(len(table)):
        tf = cell // len(norms) + 1
        table[cell] = _gain(tf, cell % len(norms), idf, count, norms, table, 0)
    return len(table)


# Inlined, because handing the tuples over takes longer than most of its calls.
@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _add_to_candidates(postings, lengths, query, j, candidates, n, scores):  # type: ignore[no-untyped-def]
    """Adds term j to the candidates, by whichever of two ways is cheaper."""
    places, counts, norms = postings.places, postings.counts, postings.norms
    begin, end, idf, count = query.begins[j], query.ends[j], query.idfs[j], query.counts[j]
    table, n_cells = query.tables[j], query.cells[j]
    if end - begin < 32 * n:
        # The scores of passages that are out of the race are spoilt by this. They are not looked at
        # again, but must stay above 0 to be cleared, or at 0.
        for p in range(begin, end):
            place = places[p]
            score = scores[place]
            gain = _gain(counts[p], lengths[place], idf, count, norms, table, n_cells)
            scores[place] = score + gain if score != 0 else score
        return
    for i in range(n):
        place = candidates[i]
        left, right = begin, end
        while left < right:
            middle = (left + right) // 2
            if places[middle] < place:
                left = middle + 1
            else:
                right = middle
        if left < end and places[left] == place:
            scores[place] += _gain(counts[left], lengths[place], idf, count, norms, table, n_cells)


@njit(cache=True, nogil=True, error_model="numpy")
def _search_block(postings, first, query, work, threshold, size):  # type: ignore[no-untyped-def]  # noqa: C901
    """Offers the passages of one block to the heap of the best; returns how many it has then.

    `first` is the first passage of the block, `size` how many the heap has.
    """
    places, counts, norms = postings.places, postings.counts, postings.norms
    lengths = postings.lengths[first : first + postings.block]
    begins, ends, gains = query.begins, query.ends, query.gains
    scores, seen, left = work.scores, work.seen, work.left
    heap_scores, heap_indices = work.heap_scores, work.heap_indices
    k = len(heap_scores)
    n_terms = len(begins)
    ahead = 0
    remaining = np.zeros(n_terms + 1, np.float32)
    for j in range(n_terms - 1, -1, -1):
        remaining[j] = remaining[j + 1] + gains[j]
        ahead += ends[j] - begins[j]
    if remaining[0] < threshold * _SAFETY:
        return size
    n = 0  # passages seen
    n_left = 0  # those of them still in the race, once no other can join it
    growing = True
    for j in range(n_terms):
        begin, end = begins[j], ends[j]
        if begin == end:
            continue
        racing, n_racing = (seen, n) if growing else (left, n_left)
        # A threshold of this block cannot be above what was added so far. Finding it costs about as
        # much as adding the candidates again, and pays by what need not be added.
        if size < k < n_racing and remaining[j] < remaining[0] - remaining[j] and ahead > n_racing:
            found = _kth_best(racing, n_racing, scores, work.spare_scores, work.spare_indices)
            threshold = max(threshold, found)
        if remaining[j] < threshold * _SAFETY:
            growing = False
            n_left = 0
            for i in range(n_racing):
                left[n_left] = racing[i]
                n_left += scores[racing[i]] + remaining[j] >= threshold * _SAFETY
            if n_left == 0:
                break
        ahead -= end - begin
        if growing:
            idf, count = query.idfs[j], query.counts[j]
            table, n_cells = query.tables[j], query.cells[j]
            for p in range(begin, end):
                place = places[p]
                score = scores[place]
                seen[n] = place
                n += score == 0
                scores[place] = score + _gain(
                    counts[p], lengths[place], idf, count, norms, table, n_cells
                )
        else:
            _add_to_candidates(postings, lengths, query, j, left, n_left, scores)
    if growing:
        for i in range(n):
            size = _push(heap_scores, heap_indices, size, scores[seen[i]], first + seen[i])
    else:
        for i in range(n_left):
            size = _push(heap_scores, heap_indices, size, scores[left[i]], first + left[i])
    for i in range(n):
        scores[seen[i]] = 0
    return size


@njit(cache=True, nogil=True, error_model="numpy")
def _new_query(postings, terms, counts, idfs):  # type: ignore[no-untyped-def]
    order = _rank_terms(postings.blocks, postings.bounds, terms, counts)
    terms, counts, idfs = terms[order], counts[order], idfs[order]
    n = len(terms)
    tables, cells = np.empty((n, 4 * len(postings.norms)), np.float32), np.empty(n, np.int64)
    entries, begins, ends = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for j in range(n):
        entries[j], ends[j] = postings.blocks[terms[j]], postings.pointers[terms[j]]
        n_postings = postings.pointers[terms[j] + 1] - ends[j]
        cells[j] = _tabulate(tables[j], n_postings, idfs[j], counts[j], postings.norms)
    gains = np.empty(n, np.float32)
    return _Query(terms, counts, idfs, tables, cells, entries, begins, ends, gains)


@njit(cache=True, nogil=True, error_model="numpy")
def _enter_block(postings, number, query):  # type: ignore[no-untyped-def]
    """Moves a query on to the postings of the next block."""
    for j in range(len(query.terms)):
        query.begins[j] = query.ends[j]
        query.gains[j] = 0
        entry = query.entries[j]
        if entry < postings.blocks[query.terms[j] + 1] and postings.numbers[entry] == number:
            query.ends[j] += postings.sizes[entry] + 1
            query.gains[j] = postings.bounds[entry] * query.counts[j]
            query.entries[j] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _search_rows(  # type: ignore[no-untyped-def]
    postings, pointers, terms, counts, idfs, k, low, high, out_indices, out_scores
):
    work = _Work(
        np.zeros(postings.block, np.float32),
        # One place more: a passage is written down before it is known whether it is new.
        np.empty(postings.block + 1, np.int32),
        np.empty(postings.block + 1, np.int32),
        np.empty(k, np.float32),
        np.empty(k, np.int64),
        np.empty(k, np.float32),
        np.empty(k, np.int64),
    )
    heap_scores, heap_indices = work.heap_scores, work.heap_indices
    n_blocks = -(-len(postings.lengths) // postings.block)
    for row in range(low, high):
        span = slice(pointers[row], pointers[row + 1])
        query = _new_query(postings, terms[span], counts[span], idfs[span])
        size = 0
        for number in range(n_blocks):
            _enter_block(postings, number, query)
            threshold = heap_scores[0] if size == k else np.float32(0)
            size = _search_block(postings, number * postings.block, query, work, threshold, size)
        while size > 0:
            size -= 1
            out_indices[row, size] = heap_indices[0]
            out_scores[row, size] = heap_scores[0]
            heap_scores[0] = heap_scores[size]
            heap_indices[0] = heap_indices[size]
            _sift_down(heap_scores, heap_indices, size)

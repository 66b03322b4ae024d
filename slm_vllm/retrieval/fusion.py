"""Fuses the rankings of several searches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slm_vllm.retrieval.base import SearchResult

Contributions = NDArray[np.float64]


def reciprocal_rank(result: SearchResult, k: float) -> Contributions:
    """1 / (k + rank) for each passage found.

    (Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods", SIGIR 2009, with k = 60.)
    """
    ranks = np.arange(1, result.indices.shape[1] + 1)
    return np.where(result.indices >= 0, 1.0 / (k + ranks), 0.0)


def min_max(result: SearchResult) -> Contributions:
    """Scores of each question scaled to 0 for the worst passage found and 1 for the best.

    Weighted sums of these are the convex combination of Bruch, Gai and Ingber, "An analysis of
    fusion functions for hybrid retrieval", ACM TOIS 2023. A single passage, or all of equal score,
    gets 1.
    """
    found = result.indices >= 0
    scores = result.scores.astype(np.float64)
    highest = np.max(scores, axis=1, initial=-np.inf, where=found, keepdims=True)
    lowest = np.min(scores, axis=1, initial=np.inf, where=found, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (scores - lowest) / (highest - lowest)
    scaled = np.where(highest > lowest, scaled, 1.0)
    return np.where(found, scaled, 0.0)


def fuse(
    results: Sequence[SearchResult],
    contributions: Sequence[Contributions],
    weights: Sequence[float],
    top_k: int,
) -> SearchResult:
    """Adds up what each search contributes to each passage and ranks by the sum.

    Equal sums are ranked by the position of the passage.
    """
    n_questions = len(results[0].indices)
    fused = SearchResult.empty(n_questions, top_k)
    indices = np.concatenate([result.indices for result in results], axis=1)
    values = np.concatenate([c * w for c, w in zip(contributions, weights, strict=True)], axis=1)
    rows, columns = np.nonzero(indices >= 0)
    if len(rows) == 0:
        return fused
    span = int(indices.max()) + 1
    keys, inverse = np.unique(rows * span + indices[rows, columns], return_inverse=True)
    sums = np.bincount(inverse, values[rows, columns]).astype(np.float32)
    owner, passage = keys // span, keys % span
    order = np.lexsort((passage, -sums, owner))
    owner, passage, sums = owner[order], passage[order], sums[order]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = place < top_k
    fused.indices[owner[kept], place[kept]] = passage[kept]
    fused.scores[owner[kept], place[kept]] = sums[kept]
    return fused

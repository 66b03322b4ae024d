"""The inverted index that bm25's kernels search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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

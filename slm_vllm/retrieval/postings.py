"""The inverted index of bm25 on disk and in memory, which are the same: every array is mapped.

A posting is three bytes: the place of a passage within its block of 65,536 passages, and how often
the term is in it. What a posting adds to a score follows from that, the passage's length and two
numbers of the index, so it is computed while searching, with the bits of a stored float.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slm_vllm.retrieval.arrays import mapped_array

BLOCK = 1 << 16
"""Passages in a block. Their scores (256 KiB) stay in a core's second cache during a search."""

TERMS = "terms.arrow"
ARRAYS = (
    "pointers", "blocks", "numbers", "sizes", "bounds", "places", "counts", "lengths", "norms"
)  # fmt: skip
"""Each in a file of its own, `<name>.npy`."""


class Postings(NamedTuple):
    """An inverted index, passages ascending within each term; a tuple, as numba takes it.

    Attributes:
        pointers: int64 (n_terms + 1,), where each term's postings begin.
        blocks: unsigned (n_terms + 1,), where each term's entries in the next three begin.
        numbers: uint16 (n_entries,), a block of passages the term is in, ascending.
        sizes: uint16 (n_entries,), its postings there, less one.
        bounds: float32 (n_entries,), the largest weight of the term there.
        places: uint16 (n,), passages, counted from the first of the block.
        counts: unsigned (n,), occurrences of the term in the passage.
        lengths: unsigned (n_passages,), length of each passage, as a position in `norms`.
        norms: float64 (n_lengths,), k1 * (1 - b + b * length / mean length).
        block: Passages in a block.
    """

    pointers: NDArray[np.int64]
    blocks: NDArray[np.unsignedinteger[Any]]
    numbers: NDArray[np.uint16]
    sizes: NDArray[np.uint16]
    bounds: NDArray[np.float32]
    places: NDArray[np.uint16]
    counts: NDArray[np.unsignedinteger[Any]]
    lengths: NDArray[np.unsignedinteger[Any]]
    norms: NDArray[np.float64]
    block: int

    @classmethod
    def open(cls, folder: Path) -> Postings:
        """Maps what a build wrote.

        Raises:
            ValueError: The files do not belong together.
            OSError: One is missing.
        """
        postings = cls(**{name: _mapped(folder / f"{name}.npy") for name in ARRAYS}, block=BLOCK)
        if len(postings.places) != postings.pointers[-1]:
            raise ValueError("the number of postings is not what the pointers say")
        return postings

    @property
    def n_passages(self) -> int:
        """Passages in all."""
        return len(self.lengths)

    def idf(self, terms: NDArray[np.int64]) -> NDArray[np.float64]:
        """ln(1 + (N - df + 0.5) / (df + 0.5)) of some terms."""
        return idf(self.pointers[terms + 1] - self.pointers[terms], self.n_passages)

    def highest(self, terms: NDArray[np.int64]) -> NDArray[np.float32]:
        """The largest weight of each of some terms, in any passage."""
        first, last = self.blocks[terms].tolist(), self.blocks[terms + 1].tolist()
        found = (self.bounds[a:b].max(initial=0) for a, b in zip(first, last, strict=True))
        return np.fromiter(found, np.float32, len(terms))

    def term(self, term: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The passages of a term and its weight in each."""
        begin, end = self.pointers[term : term + 2].tolist()
        first, last = self.blocks[term : term + 2].tolist()
        starts = self.numbers[first:last].astype(np.int64) * self.block
        passages = np.repeat(starts, self.sizes[first:last].astype(np.int64) + 1)
        passages += self.places[begin:end]
        norms = self.norms[self.lengths[passages]]
        weight = self.idf(np.array([term]))[0]
        return passages, weights(weight, self.counts[begin:end], norms)


def idf(frequency: NDArray[np.int64], n_passages: int) -> NDArray[np.float64]:
    """Lucene's inverse document frequency, which is never negative."""
    found: NDArray[np.float64] = np.log1p((n_passages - frequency + 0.5) / (frequency + 0.5))
    return found


def weights(
    idf: NDArray[np.float64] | float, counts: NDArray[Any], norms: NDArray[np.float64]
) -> NDArray[np.float32]:
    """What postings add to the scores of their passages."""
    found: NDArray[np.float64] = idf * counts.astype(np.float64) / (counts + norms)
    return found.astype(np.float32)


def norms(lengths: NDArray[np.int64], mean: float, k1: float, b: float) -> NDArray[np.float64]:
    """What holds back repeated words and long passages, by length in words."""
    return np.asarray(k1 * (1 - b + b * lengths / max(mean, 1e-9)), np.float64)


def _mapped(path: Path) -> NDArray[Any]:
    # Of the plain class: slices of the mapped one take longer, and numba would compile twice.
    return np.asarray(mapped_array(path))

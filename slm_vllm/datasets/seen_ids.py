"""Finds repeated ids in eight bytes an id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

_Hashes = npt.NDArray[np.uint64]


class SeenIds:
    """A growing set of strings, kept as sorted arrays of 64-bit hashes.

    A million ids take 8 MB where a Python set takes about 100. Arrays are merged when the newer
    one has grown to half the size of the older one, so that adding n ids costs O(n log n) in all.
    Two different ids share a hash with a probability of about n² / 4e19: 3e-8 for a million.
    """

    def __init__(self) -> None:
        self._levels: list[_Hashes] = []

    def __len__(self) -> int:
        return sum(len(level) for level in self._levels)

    def add(self, ids: pl.Series) -> pl.Series:
        """Adds ids and says which were there already.

        Args:
            ids: Strings, shape (n,). Nulls are never taken for seen.

        Returns:
            Booleans, shape (n,): True where the id was added by an earlier call or stands further
            up in this one.
        """
        valid = np.ones(len(ids), dtype=bool)
        if ids.null_count():
            valid = ids.is_not_null().to_numpy()
        hashes: _Hashes = ids.hash(seed=0).to_numpy().astype(np.uint64, copy=False)
        unique, first, inverse = np.unique(hashes[valid], return_index=True, return_inverse=True)
        known = np.zeros(len(unique), dtype=bool)
        for level in self._levels:
            at = np.searchsorted(level, unique)
            known |= level[np.minimum(at, len(level) - 1)] == unique
        repeated = np.ones(len(inverse), dtype=bool)
        repeated[first] = False
        seen = np.zeros(len(ids), dtype=bool)
        seen[valid] = repeated | known[inverse]
        self._push(unique[~known])
        return pl.Series(ids.name, seen)

    def _push(self, fresh: _Hashes) -> None:
        if not len(fresh):
            return
        self._levels.append(fresh)
        while len(self._levels) > 1 and len(self._levels[-1]) * 2 >= len(self._levels[-2]):
            newer, older = self._levels.pop(), self._levels.pop()
            merged = np.concatenate((older, newer))
            merged.sort(kind="stable")  # two sorted runs: merged in linear time
            self._levels.append(merged)

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.datasets.seen_ids import SeenIds

BATCHES = st.lists(st.lists(st.none() | st.integers(0, 50).map(str), max_size=20), max_size=20)


@settings(deadline=None)
@given(BATCHES)
def test_agrees_with_a_python_set(batches: list[list[str | None]]) -> None:
    seen, known = SeenIds(), set[str]()
    for batch in batches:
        expected = []
        for name in batch:
            expected.append(name in known)
            if name is not None:
                known.add(name)
        got = seen.add(pl.Series("id", batch, dtype=pl.String))
        assert got.dtype == pl.Boolean
        assert got.to_list() == expected
    assert len(seen) == len(known)


def test_levels_stay_few_and_compact() -> None:
    seen = SeenIds()
    for start in range(0, 20_000, 100):
        ids = pl.Series(np.arange(start, start + 100)).cast(pl.String)
        assert not seen.add(ids).any()
    assert len(seen) == 20_000
    assert len(seen._levels) <= 16
    assert sum(level.nbytes for level in seen._levels) == 8 * 20_000

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.runs import mode_run

KEYS = st.lists(st.integers(0, 9) | st.just(2**64 - 1), max_size=12)


@given(KEYS, KEYS, st.integers(1, 5))
def test_which_keys_are_known(keys: list[int], known: list[int], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mode_run, "_LOOKED_UP", at_once)
        asked = np.array(keys, dtype=np.uint64)
        found = mode_run._are_in(asked, np.sort(np.array(known, dtype=np.uint64)))
    assert found.tolist() == [key in known for key in keys]

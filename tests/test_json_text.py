from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.json_text import encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(VALUES)
def test_it_is_the_json_of_the_standard_library(value: object) -> None:
    assert encode(value) == json.JSONEncoder(ensure_ascii=False).encode(value)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        encode([{1, 2}])

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.json_text import as_mapping, as_number, encode

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


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (0.5, 0.5), (True, None), (float("nan"), None), ("3", None), (None, None)],
)
def test_what_is_read_as_a_number(value: object, number: float | None) -> None:
    assert as_number(value) == number


def test_what_is_read_as_an_object() -> None:
    assert as_mapping({"a": 1}) == {"a": 1}
    assert as_mapping([1]) == as_mapping(None) == {}

"""Rows of any keys and values, as strategies of hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = (
    ["question", "Question", "query", "input", "problem", "answer", "answers", "golden_answers"]
    + ["possible_answers", "output", "id", "_id", "question_id", "context", "contexts", "ctxs"]
    + ["documents", "positive_ctxs", "passages", "paragraphs", "supporting_facts", "title"]
    + ["metadata", "qas", "answer_aliases", "entity_pages", "other", ""]
)
KEYS = ["text", "value", "aliases", "title", "sentences", "contents", "id", "is_supporting", "x"]
TEXT = st.text(max_size=8) | st.sampled_from(
    [
        "['a', 'b']",
        '["a"]',
        "['a' 'b']",
        "{'text': ['a']}",
        "[1, 2]",
        "[[",
        "(list (description a))",
    ]
    + ['[["T", ["A."]]]', "nan", " ", "a\x00b", "\u2028", "“a”"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
ROW = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)

"""Questions nested in their texts: SQuAD articles, MRQA contexts, DROP passages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_QUESTIONS = ("qas", "qa_pairs")
_AROUND = frozenset(("row", "paragraphs", *_QUESTIONS))


def may_be_nested(value: Mapping[str, Any]) -> bool:
    """Whether an object has a key that questions can be nested in."""
    return not _AROUND.isdisjoint(value)


def unfolded(value: Any) -> Iterator[Any]:
    """Yields the rows of an object: itself, or one for each question that is nested in it.

    A nested row has the fields of what is around it: title and context. What is no object is
    yielded as it is.
    """
    if not isinstance(value, dict) or not may_be_nested(value):
        yield value
        return
    if "row" in value and "row_idx" in value:  # the viewer of the Hugging Face hub
        value = value["row"] if isinstance(value["row"], dict) else value
    paragraphs = value.get("paragraphs")
    if isinstance(paragraphs, list) and any(map(_holds_questions, paragraphs)):
        around = {key: kept for key, kept in value.items() if key != "paragraphs"}
        for paragraph in paragraphs:
            yield from _questions(paragraph, around)
    elif _holds_questions(value) and any(value.get(key) for key in _QUESTIONS):
        yield from _questions(value, {})
    else:
        yield value


def _holds_questions(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(value.get(key), list) and "question" not in value for key in _QUESTIONS
    )


def _questions(value: Any, around: Mapping[str, Any]) -> Iterator[Any]:
    if not _holds_questions(value):
        yield value
        return
    key = next(key for key in _QUESTIONS if isinstance(value.get(key), list))
    shared = {**around, **{name: kept for name, kept in value.items() if name != key}}
    if "passage" in shared and "context" not in shared:
        shared["context"] = shared.pop("passage")
    shared.pop("id", None)  # that of the text
    for question in value[key]:
        yield {**shared, **question} if isinstance(question, Mapping) else question

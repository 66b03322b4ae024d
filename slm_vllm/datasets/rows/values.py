"""What a field may look like in the wild, brought to the types of the canonical row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slm_vllm.datasets.identity import document_id

Document = dict[str, str]


class ValueProblem(ValueError):
    """A field that cannot be used; the message is the reason the row is rejected with."""


def text_of(value: Any, key: str) -> str:
    """Gives a string; None becomes "", a number its digits.

    Raises:
        ValueProblem: A list or object.
    """
    if value is None:
        return ""
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueProblem(f"{key!r} is {_kind(value)}, not a string")


def texts_of(value: Any, key: str) -> list[str]:
    """Gives the strings of a string, a list, or an object with a list under "text".

    Blank strings and nulls are left out.
    """
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    items = value if isinstance(value, (list, tuple)) else [value]
    texts = (text_of(item, key) for item in items)
    return [text for text in texts if text.strip()]


def documents_of(value: Any, key: str = "documents") -> list[Document]:
    """Gives documents of a text, an object, or a list of either; blank ones are left out.

    Objects may name their text "text", "content" or "context", and their id "document_id" or "id".
    A document without an id gets one from its content.
    """
    items = value if isinstance(value, (list, tuple)) else [value]
    return [document for item in items if (document := _document(item, key)) is not None]


def check_documents(value: Any, key: str = "documents") -> None:
    """Raises `ValueProblem` where `documents_of` does, and makes no documents."""
    for item in value if isinstance(value, (list, tuple)) else [value]:
        _document_fields(item, key)


def mapping_of(value: Any, key: str) -> dict[str, Any]:
    """Gives a copy of an object; None becomes an empty one."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueProblem(f"{key!r} is {_kind(value)}, not an object")


def first_of(row: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """Gives the value of the first key that the row has, or None."""
    return next((row[key] for key in keys if row.get(key) is not None), None)


def require_key(row: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Raises `ValueProblem` when the row has none of the keys."""
    if not any(key in row for key in keys):
        raise ValueProblem(f"key {' or '.join(map(repr, keys))} is missing")


def unique(texts: Iterable[str]) -> list[str]:
    """Gives the texts without repetitions and blank ones, in order."""
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _document(item: Any, key: str) -> Document | None:
    text, title, url, name = _document_fields(item, key)
    if not text:
        return None
    return {"document_id": name or document_id(url, title, text), "title": title, "text": text}


def _document_fields(item: Any, key: str) -> tuple[str, str, str, str]:
    """Gives text, title, URL and id; all are "" where the text is blank."""
    if not isinstance(item, Mapping):
        item = {"text": item}
    text = text_of(first_of(item, ("text", "content", "context")), key)
    if not text or text.isspace():
        return "", "", "", ""
    title, url = text_of(item.get("title"), key), text_of(item.get("url"), key)
    return text, title, url, text_of(first_of(item, ("document_id", "id")), key)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, (list, tuple)) else "an object"

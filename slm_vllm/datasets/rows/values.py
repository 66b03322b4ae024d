"""Converts field values to the types of the canonical row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from slm_vllm.datasets.rows.literals import Digits, literal, written_object

Document = dict[str, str]
T = TypeVar("T")

_LISP = re.compile(r'\(description\s+(?:"((?:[^"\\]|\\.)*)"|([^()\s"]+))\)')
_NAMED_ANSWERS = ("text", "value", "answer", "aliases", "spans", "number", "name")
_EXACT = 1 << 53  # from here on a float stands for more than one whole number
_ALSO = re.compile(r"[\s_-]")


class ValueProblem(ValueError):
    """A value of no use; the message says why, of a row or of one of its fields."""


def usable(
    read: Callable[[Any, str], T], value: Any, key: str, lose: Callable[[str], object]
) -> T | None:
    """What `read` makes of a value; None where it is of no use, and `lose` is told why."""
    try:
        return read(value, key)
    except ValueProblem as problem:
        lose(str(problem))
        return None


def text_of(value: Any, key: str) -> str:
    """Gives a string; None and NaN become "", a number its digits, bytes their UTF-8.

    Raises:
        ValueProblem: A list or object, an infinite number, bytes that are not text.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return ""
        raise ValueProblem(f"{key!r} is {value}, which is neither a text nor a number")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueProblem(f"{key!r} holds bytes that are not UTF-8") from error
    if isinstance(value, (Mapping, list, tuple)):
        raise ValueProblem(f"{key!r} is {kind_of(value)}, not a string")
    return str(value)


def answers_of(value: Any, key: str = "answer", *, plain_numbers: bool = False) -> list[str]:
    """Gives the accepted spellings of an answer; blank ones and missing values are left out.

    Understood are a text; a list; a list or object written into a text; `{value, aliases}`
    (TriviaQA), `{text: [...]}` (SQuAD), `{spans, number}` (DROP), and lists of such. A whole
    number is written without a fraction.

    Args:
        value: What the field holds.
        key: Its name, for messages.
        plain_numbers: Whether "[1, 2]" in a text is a list, as it is where nothing but text can
            be written; otherwise it is an interval, or whatever was meant.

    Raises:
        ValueProblem: An object of unknown keys, or an infinite number.
    """
    if isinstance(value, str):
        listed = _listed(value, plain_numbers)
        if listed is None:
            return [value] if value.strip() else []
        return _unique(answers_of(listed, key))
    if isinstance(value, Mapping):
        return _unique(_answers_of_object(value, key))
    if isinstance(value, (list, tuple)):
        if all(item is None or isinstance(item, str) for item in value):
            return [item for item in value if item is not None and item.strip()]
        return [text for item in value for text in _item_answers(item, key)]
    return _answer(value, key)


def texts_of(value: Any, key: str) -> list[str]:
    """Gives the strings of a string or a list; blank strings and nulls are left out."""
    items = value if isinstance(value, (list, tuple)) else [value]
    texts = (text_of(item, key) for item in items)
    return [text for text in texts if text.strip()]


def mapping_of(value: Any, key: str) -> dict[str, Any]:
    """Gives a copy of an object, also of one written into a text; none becomes an empty one.

    Raises:
        ValueProblem: Anything else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    found = written_object(value) if isinstance(value, str) else value
    if isinstance(found, Mapping):
        return dict(found)
    raise ValueProblem(f"{key!r} is {kind_of(value)}, not an object")


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


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, list(value)[:5]))
        return f"an object with the keys {keys}" if keys else "an empty object"
    return "a text" if isinstance(value, str) else "a number"


def _listed(text: str, plain_numbers: bool) -> Any:
    """Reads answers written into one text; None where it is a text like any other."""
    stripped = text.strip()
    if stripped.startswith("(list "):
        return [
            (quoted or bare).replace('\\"', '"') for quoted, bare in _LISP.findall(stripped)
        ] or None
    found = literal(stripped)
    if isinstance(found, Mapping):
        return found if _known_keys(found) else None
    if not isinstance(found, list) or not (found or stripped[0] == "["):
        return None
    numbers = [item for item in found if isinstance(item, Digits)]
    if numbers and len(numbers) == len(found) and not (plain_numbers and stripped[0] == "["):
        return None
    return found


def _item_answers(item: Any, key: str) -> list[str]:
    """The answers of one item of a list; only an object or list of them is looked into."""
    if isinstance(item, (Mapping, list, tuple)):
        return answers_of(item, key)
    return _answer(item, key)


def _answer(value: Any, key: str) -> list[str]:
    # Tables keep whole numbers as fractions where one of a column is missing: 1969.0 is 1969.
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    text = text_of(value, key)
    return [text] if text.strip() else []


def _known_keys(value: Mapping[str, Any]) -> list[str]:
    spelled = {_ALSO.sub("", str(name)).lower(): name for name in value}
    return [spelled[name] for name in _NAMED_ANSWERS if name in spelled]


def _answers_of_object(value: Mapping[str, Any], key: str) -> list[str]:
    known = _known_keys(value)
    if not known and value:
        raise ValueProblem(f"{key!r} is {kind_of(value)}")
    return [text for name in known for text in answers_of(value[name], key)]


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))

"""Converts field values to the types of the canonical row."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, time
from typing import Any, TypeVar

from slm_vllm.datasets.rows.literals import Digits, literal, unquoted_list, written_object

Document = dict[str, str]
T = TypeVar("T")

_LISP = re.compile(r'\(description\s+(?:"((?:[^"\\]|\\.)*)"|([^()\s"]+))\)')
_NAMED_ANSWERS = ("text", "value", "answer", "aliases", "spans", "number", "name")
MISSING = ("NaN", "nan", "NaT", "<NA>")
"""What pandas writes for a missing value; it may be meant as a text."""

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

    A time at midnight is a day: tables know days only as that.

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
    if isinstance(value, datetime) and value.time() == time.min:
        return str(value.date())
    return str(value)


def answers_of(value: Any, key: str = "answer", *, only_text: bool = False) -> list[str]:
    """Gives the accepted spellings of an answer; blank ones and missing values are left out.

    Understood are a text; a list; a list or object written into a text; `{value, aliases}`
    (TriviaQA), `{text: [...]}` (SQuAD), `{spans, number, date}` (DROP), and lists of such. A whole
    number is written without a fraction.

    Args:
        value: What the field holds.
        key: Its name, for messages.
        only_text: Whether "[1, 2]" and "[a, b]" are lists, as they are in a file that can hold
            nothing but text; elsewhere they are an interval, or whatever was meant.

    Raises:
        ValueProblem: An object of unknown keys, or an infinite number.
    """
    if isinstance(value, str):
        listed = _listed(value, only_text)
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


def choices_of(value: Any) -> dict[str, str]:
    """The texts of choices by what an answer may point to them with; none where it holds no texts.

    Args:
        value: A list of texts, named by letters and by numbers from 0; {"text": [...],
            "label": [...]} (ARC); texts by label (MedQA).
    """
    if isinstance(value, str):
        value = literal(value)
    if isinstance(value, Mapping) and isinstance(value.get("label"), list):
        labels, texts = value["label"], value.get("text")
    elif isinstance(value, Mapping):
        labels, texts = list(value), list(value.values())
    else:
        labels, texts = [], value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return {}
    if labels:
        return dict(zip(map(str, labels), texts, strict=False))
    numbered = {str(number): text for number, text in enumerate(texts)}
    return dict(zip(string.ascii_uppercase, texts, strict=False)) | numbered


def chosen(value: Any, choices: Mapping[str, str], notice: Callable[[str], None]) -> Any:
    """The text of the choice that an answer points to.

    Args:
        value: The answer, or a list of it alone; one that is the text of a choice, or no text or
            number, is given back.
        choices: See `choices_of`.
        notice: Told of an answer that may mean something else than what it is taken for.
    """
    if isinstance(value, list) and len(value) == 1:
        return [chosen(value[0], choices, notice)]
    if not choices or isinstance(value, bool) or not isinstance(value, (str, int)):
        return value
    word, texts = str(value).strip(), choices.values()
    if word in choices and word in texts and choices[word] != word:
        taken = "text" if isinstance(value, str) else "number"
        notice(f"the answer is one choice and the name of another, and is taken for its {taken},")
    if value in texts:
        return value
    if word and word not in choices and word not in texts:
        notice("the answer is none of the choices and points to none of them")
    return choices.get(word, value)


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


def _listed(text: str, only_text: bool) -> Any:
    """Reads answers written into one text; None where it is a text like any other."""
    stripped = text.strip()
    if stripped.startswith("(list "):
        return [
            (quoted or bare).replace('\\"', '"') for quoted, bare in _LISP.findall(stripped)
        ] or None
    found = literal(stripped)
    if found is None and only_text:
        return unquoted_list(stripped)
    if isinstance(found, Mapping):
        return found if _known_keys(found) else None
    if not isinstance(found, list) or not (found or stripped[0] == "["):
        return None
    numbers = [item for item in found if isinstance(item, Digits)]
    if numbers and len(numbers) == len(found) and not (only_text and stripped[0] in "[{"):
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
    answers = [text for name in known for text in answers_of(value[name], key)]
    date = value.get("date")
    if not answers and isinstance(date, Mapping):  # DROP, as its own evaluation joins the parts
        parts = [text_of(date.get(part), key) for part in ("day", "month", "year")]
        answers = unique([" ".join(part for part in parts if part)])
    return answers


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))

"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.datasets.reading.lines import Line
from slm_vllm.datasets.reading.record import Place, Record, Reject
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.types import RejectedRow


def decode_lines(
    path: str,
    lines: list[Line],
    reject: Reject,
    dtype: pl.Struct | None = None,
) -> list[Record]:
    """Decodes lines that hold one JSON object each; bad ones are rejected with the reason.

    Args:
        path: The file, for messages.
        lines: The lines.
        reject: Takes the bad ones.
        dtype: The keys wanted, with types. With it polars decodes the whole batch at once; missing
            keys become None, others are left to the record's `text`. Without it each object keeps
            all its keys.
    """
    if dtype is not None and not any(_may_hold_surrogate(line.text) for line in lines):
        try:
            values = _decode_series([line.text for line in lines], dtype)
        except pl.exceptions.PolarsError:
            values = []
        decoded = [value for value in values if value is not None]
        if len(decoded) == len(lines):
            return [
                Record(Place(line.number), row, "", line.text)
                for line, row in zip(lines, decoded, strict=True)
            ]
    rows = []
    for line in lines:
        try:
            value = _decode_line(line.text, dtype)
            rows.append(Record(Place(line.number), value, "", "" if dtype is None else line.text))
        except ValueError as error:
            excerpt = line.text[:EXCERPT_CHARACTERS]
            reject(RejectedRow(path, line.number, str(error), excerpt))
    return rows


def json_type(value: Any) -> str:
    """JSON's name for the type of a decoded value."""
    names = {list: "array", str: "string", bool: "boolean", type(None): "null", dict: "object"}
    return names.get(type(value), "number")


def holds_lone_surrogate(value: Any) -> bool:
    """Whether a decoded value holds a text that is not Unicode."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _decode_series(texts: list[str], dtype: pl.Struct) -> list[dict[str, Any] | None]:
    return pl.Series(texts, dtype=pl.String).str.json_decode(dtype).to_list()


def _decode_line(text: str, dtype: pl.Struct | None) -> dict[str, Any]:
    """Decodes one line as the batch would have been; `ValueError` says what is wrong."""
    if dtype is not None and not _may_hold_surrogate(text):
        try:
            values = _decode_series([text], dtype)
        except pl.exceptions.PolarsError as error:
            problem = str(error)
        else:
            if values and values[0] is not None:
                return values[0]
            problem = "not a JSON object"
        _loads_object(text)
        raise ValueError(_type_problem(problem))
    value = _loads_object(text)
    if _may_hold_surrogate(text) and holds_lone_surrogate(value):
        raise ValueError("a lone surrogate in a text (\\ud800 to \\udfff without its pair)")
    if dtype is None:
        return value
    return _decode_line(json.dumps(value, ensure_ascii=False), dtype)


def _loads_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON at column {error.colno}: {error.msg}") from error
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {json_type(value)}, not an object")
    return value


def _type_problem(message: str) -> str:
    first = message.split("\n")[0].removeprefix("error deserializing JSON: ")
    return f"wrong type: {first[:200]}"


def _may_hold_surrogate(text: str) -> bool:
    if "\\" not in text:
        return False
    # Three times as fast as two searches for "\\ud" and "\\uD" in a line of some hundred KB.
    line = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    at = np.flatnonzero(line[:-2] == ord("\\"))
    at = at[line[at + 1] == ord("u")]
    return bool((line[at + 2] | 32 == ord("d")).any())

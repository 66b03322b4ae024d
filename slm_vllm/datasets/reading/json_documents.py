"""JSON files that are not JSON Lines: an array, or an object around the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slm_vllm.datasets.reading.json_cursor import JsonCursor
from slm_vllm.datasets.reading.json_lines import holds_lone_surrogate
from slm_vllm.datasets.reading.record import IsRow, Place, Record, Reject
from slm_vllm.errors import DataError

KEY = "id"
"""Where a row keeps the name it has in an object of rows, unless it has such a field."""

_ROWS_LOOKED_AT = 1000


def document_records(path: str, reject: Reject, is_row: IsRow) -> Iterator[Record]:
    """Yields the rows of a JSON document, in bounded memory where the rows stand one by one.

    Rows are the objects of an array; of the arrays in an object (`{"data": [...]}`, splits); or
    the values of an object of objects. An object of columns, as `DataFrame.to_json` and
    `Dataset.to_dict` write it, is read whole.

    Args:
        path: The file, packed or not.
        reject: Takes what is not Unicode.
        is_row: Tells the objects that are rows from those around them and beside them.

    Whoever takes them checks that they are objects.

    Raises:
        DataError: The JSON is damaged, with line and column; or it is sound and holds no rows.
    """
    cursor = JsonCursor(path)
    for row in _values(cursor, is_row):
        if holds_lone_surrogate(row.value):
            reject(row.place.rejected(path, "a lone surrogate in a text", repr(row.value)))
        else:
            yield row


def holds_lines(path: str, is_row: IsRow) -> bool:
    """Whether a file that begins with "{" holds one object a line, and not one around its rows."""
    cursor = JsonCursor(path)
    first, inner = 1, 0
    rest: dict[str, Any] = {}
    try:
        cursor.peek()
        first = cursor.line
        for _ in _rows_ahead(cursor, is_row, rest):
            inner += 1
            if cursor.peek() == "[" or inner > _ROWS_LOOKED_AT:
                return False
            cursor.value()
        on_one_line = cursor.line == first
        more = cursor.peek() not in ("", "\0")
    except DataError:
        return cursor.line == first  # damaged: there is more than one line, and one is lost
    single = is_row(rest) and not inner and not _is_columnar(rest, is_row)
    return on_one_line and (more or single)


def _values(cursor: JsonCursor, is_row: IsRow) -> Iterator[Record]:
    """Yields what stands where a row should; the value need not be an object."""
    while (sign := cursor.peek()) not in ("", "\0"):
        if sign == "[":
            for line in cursor.elements():
                yield Record(Place(line), cursor.value())
        elif sign == "{":
            yield from _object(cursor, is_row)
        else:
            raise cursor.error("neither an array nor an object")


def _object(cursor: JsonCursor, is_row: IsRow) -> Iterator[Record]:
    line = cursor.line
    rest: dict[str, Any] = {}
    found = False
    for key in _rows_ahead(cursor, is_row, rest):
        found = True
        if cursor.peek() == "[":
            for at in cursor.elements():
                yield Record(Place(at), cursor.value(), key)
        else:
            at, value = cursor.line, cursor.value()
            yield Record(Place(at), value if key.isdigit() else {KEY: key, **value})
    if not found:
        rows = list(_rows_of(rest, is_row))
        if not rows:
            raise DataError(
                f"{cursor.path} is valid JSON, but no rows were found in its object with the keys "
                f"{', '.join(map(repr, list(rest)[:8])) or '(none)'}. Rows are objects in an "
                "array, alone or under a key, or columns of equal length."
            )
        for section, value in rows:
            yield Record(Place(line), value, section)


def _rows_ahead(cursor: JsonCursor, is_row: IsRow, rest: dict[str, Any]) -> Iterator[str]:
    """Walks an object; yields the keys with an array of rows, or one row, ahead.

    Whoever asks for the next has passed over it. All other keys go into `rest`.
    """
    for key in cursor.items():
        if is_row(rest) or is_row({key: None}):
            rest[key] = cursor.value()
            continue
        opening = cursor.peek()
        ahead = cursor.ahead() if opening in ("[", "{") else None
        if ahead is None or not is_row(ahead) or (opening == "{" and _is_columnar(ahead, is_row)):
            rest[key] = cursor.value()
        else:
            yield key


def _rows_of(value: Mapping[str, Any], is_row: IsRow) -> Iterator[tuple[str, Any]]:
    """Yields section and row of an object that was read whole."""
    if "columns" in value and isinstance(value.get("data"), list):
        names = [str(name) for name in value["columns"]]
        for row in value["data"]:
            whole = isinstance(row, list) and len(row) == len(names)
            yield "", dict(zip(names, row, strict=True)) if whole else row
    elif _is_columnar(value, is_row):
        yield from (("", row) for row in _transposed(value))
    elif is_row(value):
        yield "", dict(value)
    else:
        found = [row for key, inner in value.items() for row in _rows_within(key, inner, is_row)]
        if not found and all(isinstance(inner, dict) for inner in value.values()):
            found = [("", inner) for inner in value.values() if inner]
        asking = {section for section, row in found if isinstance(row, dict) and is_row(row)}
        yield from (row for row in found if not asking or row[0] in asking)


def _rows_within(key: str, inner: Any, is_row: IsRow) -> Iterator[tuple[str, Any]]:
    if isinstance(inner, list) and any(isinstance(item, dict) for item in inner):
        yield from ((key, item) for item in inner)
    elif isinstance(inner, dict):
        yield from ((section or key, row) for section, row in _rows_of(inner, is_row))


def _is_columnar(value: Mapping[str, Any], is_row: IsRow) -> bool:
    """Whether an object holds a column under each key: lists of one length, or {"0": ...}."""
    columns = list(value.values())
    named = is_row(value)
    if len(columns) < 2 and not named:
        return False
    if columns and all(isinstance(column, list) for column in columns):
        nested = any(isinstance(item, dict) for column in columns for item in column[:1])
        return len({len(column) for column in columns}) == 1 and (named or not nested)
    if columns and all(isinstance(column, dict) for column in columns):
        numbered = all(name.isdigit() for name in columns[0])
        return len({tuple(column) for column in columns}) == 1 and (named or numbered)
    return False


def _transposed(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    columns: list[Sequence[Any]] = [
        list(column.values()) if isinstance(column, dict) else column for column in value.values()
    ]
    for row in zip(*columns, strict=True):
        yield dict(zip(value, row, strict=True))

"""The common reader: detects the form of a file from its first bytes and yields its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import polars as pl

from slm_vllm.datasets.reading.columnar import open_table, table_rows
from slm_vllm.datasets.reading.delimited import Dialect, delimited_records, find_dialect
from slm_vllm.datasets.reading.json_documents import document_records, holds_lines
from slm_vllm.datasets.reading.json_lines import decode_lines, json_type
from slm_vllm.datasets.reading.lines import Line, line_batches
from slm_vllm.datasets.reading.nested import unfolded
from slm_vllm.datasets.reading.opening import read_head
from slm_vllm.datasets.reading.recognition import UTF8_BOM, refuse_foreign
from slm_vllm.datasets.reading.record import IsRow, Place, Record, Reject, ignore
from slm_vllm.errors import DataError

_ROWS_LOOKED_AT = 20
_BYTES_LOOKED_AT = 4 << 20
_HEAD_BYTES = 1 << 16
_COLUMNS_SHOWN = 30
_NAME_SHOWN = 60
_TABLE_ROWS = 256


@dataclass(frozen=True, slots=True)
class Form:
    """The outer form of a file and the names of its columns.

    Attributes:
        name: "parquet", "arrow", "csv", "json" (an array, or an object around rows) or "jsonl".
        columns: Keys of the first rows that could be read, in order; may be empty.
        sections: Keys of the arrays that those rows stand in.
        dialect: How a "csv" is delimited.
        table: A "parquet" or "arrow" file, opened.
    """

    name: str
    columns: tuple[str, ...]
    sections: tuple[str, ...] = ()
    dialect: Dialect | None = None
    table: pl.LazyFrame | None = None

    def __str__(self) -> str:
        shown = ", ".join(map(printable, self.columns[:_COLUMNS_SHOWN])) or "(none found)"
        more = len(self.columns) - _COLUMNS_SHOWN
        return f"{self.name} with the columns {shown}{f' and {more} more' if more > 0 else ''}"


def printable(name: str) -> str:
    """The name of a column as a message shows it: no control characters, not endless."""
    name = name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}..."
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in name)


def find_form(path: str, is_row: IsRow) -> Form:
    """Finds the form of a file, packed or not.

    Args:
        path: The file.
        is_row: Tells rows from what stands around them, by their keys.

    Raises:
        DataError: The file cannot be read, is empty, or is none of the forms; the message says
            what it is.
    """
    head = read_head(path, _HEAD_BYTES)
    table = open_table(path, head)
    if table is not None:
        return Form(table[0], tuple(table[1].collect_schema()), table=table[1])
    if not head.strip():
        raise DataError(f"{path} is empty: it holds nothing but white space.")
    refuse_foreign(path, head)
    head = head.removeprefix(UTF8_BOM)
    opening = head.lstrip()[:1]
    if opening == b"[":
        return _document_form(path, is_row)
    if opening == b"{":
        # Without line feeds (old Macs) the lines of JSON Lines are read as values in a row.
        if (b"\r" in head and b"\n" not in head) or not holds_lines(path, is_row):
            return _document_form(path, is_row)
        return Form("jsonl", _line_columns(path))
    text = head.decode("utf-8", "replace")
    dialect = find_dialect(text, lambda name: is_row({name: None}))
    if dialect is not None:
        return Form("csv", dialect.columns, dialect=dialect)
    return Form("jsonl", _line_columns(path))


def read_records(
    path: str, form: Form, is_row: IsRow, reject: Reject, columns: Collection[str] | None = None
) -> Iterator[Record]:
    """Yields the rows of a file in its form; those that cannot be decoded are rejected.

    Args:
        path: The file.
        form: What `find_form` found.
        is_row: As for `find_form`.
        reject: Takes what is left out, with its line.
        columns: Of a table only these are read.

    Raises:
        DataError: The file is damaged as a whole.
    """
    records = _records(path, form, is_row, reject, columns)
    yield from _unfolded(path, records, reject, are_numbered=form.name == "json")


def line_records(path: str, lines: list[Line], reject: Reject) -> Iterator[Record]:
    """Yields the rows of lines of JSON, as `read_records` does those of a whole file."""
    return _unfolded(path, decode_lines(path, lines, reject), reject, are_numbered=False)


def _unfolded(
    path: str, records: Iterable[Record], reject: Reject, *, are_numbered: bool
) -> Iterator[Record]:
    """The rows of records, a number each where many may stand on one line."""
    number = 0
    for record in records:
        for value in unfolded(record.value):
            number += 1
            place = Place(record.place.line, number) if are_numbered else record.place
            if value is record.value and place is record.place and isinstance(value, dict):
                yield record
            elif isinstance(value, dict):
                yield record._replace(place=place, value=value)
            else:
                reject(
                    place.rejected(path, f"a JSON {json_type(value)}, not an object", repr(value))
                )


def _records(
    path: str, form: Form, is_row: IsRow, reject: Reject, columns: Collection[str] | None
) -> Iterator[Record]:
    if form.table is not None:
        yield from _table_records(path, form.table, columns)
    elif form.dialect is not None:
        yield from delimited_records(path, form.dialect, reject)
    elif form.name == "json":
        yield from document_records(path, reject, is_row)
    else:
        for batch in line_batches(path, reject):
            yield from decode_lines(path, batch, reject)


def _table_records(
    path: str, table: pl.LazyFrame, columns: Collection[str] | None
) -> Iterator[Record]:
    if columns is not None:
        table = table.select(name for name in table.collect_schema() if name in columns)
    for number, value in table_rows(path, table, _TABLE_ROWS):
        yield Record(Place(number), value)


def _document_form(path: str, is_row: IsRow) -> Form:
    rows = list(islice(document_records(path, ignore, is_row), _ROWS_LOOKED_AT))
    values = (value for row in rows for value in islice(unfolded(row.value), _ROWS_LOOKED_AT))
    columns = tuple(
        dict.fromkeys(key for value in values if isinstance(value, dict) for key in value)
    )
    return Form("json", columns, tuple(dict.fromkeys(row.section for row in rows if row.section)))


def _line_columns(path: str) -> tuple[str, ...]:
    """Collects the keys of the first lines that are JSON objects."""
    columns: dict[str, None] = {}
    looked_at = 0
    lines = (line for batch in line_batches(path, ignore, max_rows=1) for line in batch)
    for line in islice(lines, 5 * _ROWS_LOOKED_AT):
        for row in decode_lines(path, [line], ignore):
            for value in islice(unfolded(row.value), _ROWS_LOOKED_AT):
                columns |= dict.fromkeys(value if isinstance(value, dict) else ())
            looked_at += 1
        if looked_at == _ROWS_LOOKED_AT or len(line.text) > _BYTES_LOOKED_AT:
            break
    return tuple(columns)

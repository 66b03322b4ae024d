"""Which of the known layouts a file has, from its first bytes."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from slm_vllm.datasets.reading.json_documents import array_rows
from slm_vllm.datasets.reading.lines import line_batches
from slm_vllm.datasets.reading.opening import PARQUET_MAGIC, UTF8_BOM, check_encoding, read_head
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

SECTIONS = ("train", "eval")
"""Keys of the arrays in a converted file that holds both splits."""

_ROWS_LOOKED_AT = 20
_BYTES_LOOKED_AT = 4 << 20
_HEAD_BYTES = 1 << 16
_SECTIONED = re.compile(rb'\s*\{\s*"[^"\n]{1,40}"\s*:\s*(?:\[|\d+\s*[,}])')


@dataclass(frozen=True, slots=True)
class Layout:
    """The outer form of a file and the names of its columns.

    Attributes:
        form: "parquet", "csv", "json" (one array, or an object of arrays) or "jsonl".
        columns: Keys of the first rows that could be read, in order; may be empty.
        sectioned: Whether a "json" file is an object with arrays under "train" and "eval".
    """

    form: str
    columns: tuple[str, ...]
    sectioned: bool = False

    def __str__(self) -> str:
        return f"{self.form} with the columns {', '.join(self.columns) or '(none found)'}"


def find_layout(path: str) -> Layout:
    """Finds the layout of a file, compressed or not.

    Raises:
        DataError: The file cannot be read, is empty, not UTF-8, or holds no text at all.
    """
    head = read_head(path, _HEAD_BYTES)
    if head.startswith(PARQUET_MAGIC):
        return Layout("parquet", _parquet_columns(path))
    check_encoding(path, head[:4096])
    head = head.removeprefix(UTF8_BOM)
    text = head.lstrip()
    if not text:
        raise DataError(f"{path} is empty: it holds nothing but white space.")
    if text.startswith(b"["):
        return Layout("json", _array_columns(path))
    if text.startswith(b"{"):
        if _SECTIONED.match(head) and not _first_line_is_row(head):
            return Layout("json", _array_columns(path), sectioned=True)
        return Layout("jsonl", _line_columns(path))
    columns = _csv_columns(head)
    if columns:
        return Layout("csv", columns)
    return Layout("jsonl", _line_columns(path))


def require_columns(path: str, layout: Layout, *needed: tuple[str, ...]) -> None:
    """Raises `DataError` when none of the alternatives of a needed column is in the file."""
    if not layout.columns and layout.form == "jsonl":
        return  # the first rows are damaged; the scan rejects each with its reason
    missing = [names for names in needed if not set(names) & set(layout.columns)]
    if missing:
        words = ", ".join(" or ".join(map(repr, names)) for names in missing)
        raise DataError(
            f"{path} has no column {words}. Found: {layout}. "
            "Check the file, or name its kind with dataset.kind=..."
        )


def _first_line_is_row(head: bytes) -> bool:
    """Tells {"a": 1, "question": ...} of a JSON Lines file from the object around two arrays."""
    line, found, _ = head.strip().partition(b"\n")
    if not found and len(head) == _HEAD_BYTES:
        return False
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and not any(isinstance(value.get(key), list) for key in SECTIONS)


def _parquet_columns(path: str) -> tuple[str, ...]:
    try:
        return tuple(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path}: the Parquet file is truncated or corrupt ({str(error).splitlines()[0]}). "
            "Fetch or convert it again."
        ) from error


def _array_columns(path: str) -> tuple[str, ...]:
    rows = islice(array_rows(path, _ignore, SECTIONS), _ROWS_LOOKED_AT)
    return tuple(dict.fromkeys(key for row in rows for key in row.value))


def _line_columns(path: str) -> tuple[str, ...]:
    """Collects the keys of the first lines that are JSON objects."""
    columns: dict[str, None] = {}
    looked_at = 0
    lines = (line for batch in line_batches(path, _ignore, max_rows=1) for line in batch)
    for line in islice(lines, 5 * _ROWS_LOOKED_AT):
        try:
            value: Any = json.loads(line.text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            columns |= dict.fromkeys(value)
            looked_at += 1
        if looked_at == _ROWS_LOOKED_AT or len(line.text) > _BYTES_LOOKED_AT:
            break
    return tuple(columns)


def _csv_columns(head: bytes) -> tuple[str, ...]:
    line = head.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    names = next(csv.reader([line]), [])
    return tuple(names) if len(names) > 1 else ()


def _ignore(row: RejectedRow) -> None:
    """The scan itself reports what is wrong with a row."""

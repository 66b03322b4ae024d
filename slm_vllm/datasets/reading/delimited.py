"""Rows of CSV files, with the line each begins on."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator

from slm_vllm.datasets.reading.json_documents import JsonRow
from slm_vllm.datasets.reading.opening import DAMAGE, check_encoding, open_bytes, read_head
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

MAX_FIELD_CHARACTERS = 64 << 20


def csv_rows(path: str, reject: Callable[[RejectedRow], None]) -> Iterator[JsonRow]:
    """Yields the rows of a CSV file with the line each begins on.

    Raises:
        DataError: The file is missing, empty, UTF-16, or a damaged archive.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    check_encoding(path, read_head(path, 4096))
    # surrogateescape: a byte that is not UTF-8 costs its row, not the file.
    with io.TextIOWrapper(
        open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as text:
        reader = csv.reader(text, strict=True)
        header = next(reader)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                reject(RejectedRow(path, line, f"invalid CSV: {error}"))
                continue
            except DAMAGE as error:
                raise DataError(
                    f"{path}: the archive is truncated or corrupt ({error}). The last good line "
                    f"is {reader.line_num}. Fetch the file again."
                ) from error
            if fields is None:
                return
            problem = _csv_problem(fields, header)
            if problem:
                excerpt = ",".join(fields)[:EXCERPT_CHARACTERS]
                reject(RejectedRow(path, line, problem, _printable(excerpt)))
            elif fields:
                yield JsonRow(line, dict(zip(header, fields, strict=True)))


def _csv_problem(fields: list[str], header: list[str]) -> str:
    if not fields:
        return ""
    if len(fields) != len(header):
        return f"{len(fields)} fields where the header has {len(header)}"
    for name, value in zip(header, fields, strict=True):
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                byte = ord(value[error.start]) - 0xDC00
                return f"not UTF-8: byte 0x{byte:02x} in column {name!r}"
    return ""


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

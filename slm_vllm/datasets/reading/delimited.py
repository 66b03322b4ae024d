"""CSV and TSV files: any delimiter, any quoting, all fields as text."""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TextIO

from slm_vllm.datasets.reading.opening import DamagedArchiveError, open_bytes, reading_failed
from slm_vllm.datasets.reading.record import Place, Record, Reject
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

MAX_FIELD_CHARACTERS = 64 << 20
_DELIMITERS = (",", "\t", ";", "|", "\x01", "\x1f", ":", "^", "~", "§", "¬")
_ROWS_LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the fields of a file are parted.

    Attributes:
        delimiter: Between two fields.
        quote: Around a field that holds delimiters.
        escape: Before a quote within quotes, where it is not doubled.
        skipped: Lines before the header.
        columns: The header's names without blanks around them; repeated ones are numbered.
    """

    delimiter: str
    quote: str
    escape: str | None
    skipped: int
    columns: tuple[str, ...]

    def reader(self, lines: Iterator[str]) -> Any:
        """A `csv.reader` of this dialect."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            escapechar=self.escape,
            doublequote=self.escape is None,
            strict=True,
        )


def find_dialect(head: str, is_known: Callable[[str], bool]) -> Dialect | None:
    """Finds out how a file is delimited from its first characters.

    Args:
        head: Its beginning, without byte order mark.
        is_known: Whether a name of the header is that of a field.

    Returns:
        The dialect whose header has the most known names, and whose rows are as long as the
        header; None where there is no header of several names, nor of a single known one.
    """
    lines = list(io.StringIO(head, newline=""))
    delimiters: tuple[str, ...] = _DELIMITERS
    skipped = 0
    while skipped < len(lines) and _is_prologue(lines[skipped]):
        directive = lines[skipped].strip().strip('"')
        if directive.lower().startswith("sep=") and len(directive) == 5:
            delimiters = (directive[4],)
        skipped += 1
    if skipped == len(lines):
        return None
    quote = "'" if lines[skipped].startswith("'") else '"'
    escapes = (None, "\\") if "\\" + quote in head else (None,)
    found = [
        dialect
        for delimiter in delimiters
        for escape in escapes
        if (dialect := _with_header(Dialect(delimiter, quote, escape, skipped, ()), lines))
    ]
    if not found:
        return None

    def merit(dialect: Dialect) -> tuple[int, float, int]:
        known = sum(map(is_known, dialect.columns))
        return known, round(_regularity(dialect, lines), 1), len(dialect.columns) > 1

    best = max(found, key=merit)  # of equals the first
    return best if merit(best)[0] or len(best.columns) > 1 else None


def delimited_records(path: str, dialect: Dialect, reject: Reject) -> Iterator[Record]:
    """Yields the rows of a delimited file with the line each begins on.

    A row that cannot be read costs itself: after a quote that is never closed, reading goes on
    with the next line where that and the following ones are rows.

    Raises:
        DataError: The file cannot be read, or is a damaged archive.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    # surrogateescape: a byte that is not UTF-8 costs its row, not the file.
    with io.TextIOWrapper(
        open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as text:
        lines = _Lines(path, text)
        deque(islice(lines, dialect.skipped), maxlen=0)
        reader = dialect.reader(lines)
        next(reader, None)
        while True:
            lines.begin_row()
            try:
                fields = next(reader, None)
            except csv.Error as error:
                fields = _plain_fields(dialect, lines.row)
                if fields is None:
                    reject(_torn(path, lines, dialect, error))
                    reader = dialect.reader(lines)
                    continue
            if fields is None:
                return
            if not fields:
                continue
            n = len(dialect.columns)
            if len(fields) > n and not any(field.strip() for field in fields[n:]):
                del fields[n:]  # a spreadsheet's empty cells
            problem = _problem(fields, dialect.columns)
            if problem:
                excerpt = _printable(dialect.delimiter.join(fields)[:EXCERPT_CHARACTERS])
                reject(RejectedRow(path, lines.first, problem + lines.extent(), excerpt))
            else:
                yield Record(Place(lines.first), dict(zip(dialect.columns, fields, strict=True)))


class _Lines:
    """The lines of a file; those of the row that is being read can be given back."""

    def __init__(self, path: str, text: TextIO) -> None:
        self._path = path
        self._text = text
        self._returned: deque[str] = deque()
        self.row: list[str] = []
        self.number = 0
        self.first = 1

    def begin_row(self) -> None:
        self.row.clear()
        self.first = self.number + 1

    def give_back(self, lines: list[str]) -> None:
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)

    def extent(self) -> str:
        return f" (lines {self.first} to {self.number})" if self.number > self.first else ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self.row.append(line)
        return line

    def _read(self) -> str:
        try:
            line = self._text.readline(MAX_FIELD_CHARACTERS)
        except (DamagedArchiveError, OSError) as error:
            raise reading_failed(self._path, error, f"line {self.number}") from error
        if len(line) >= MAX_FIELD_CHARACTERS and not line.endswith(("\n", "\r")):
            raise DataError(
                f"{self._path}: line {self.number + 1} is longer than {MAX_FIELD_CHARACTERS >> 20} "
                "million characters. Is it a CSV file?"
            )
        return line


def _is_prologue(line: str) -> bool:
    """Whether a line stands before the header: blank, a comment, or Excel's `sep=`."""
    text = line.strip().strip('"')
    return not text or text.startswith("#") or text.lower().startswith("sep=")


def _with_header(dialect: Dialect, lines: list[str]) -> Dialect | None:
    try:
        names: list[str] = next(dialect.reader(iter(lines[dialect.skipped :])), [])
    except csv.Error:
        return None
    seen: Counter[str] = Counter()
    columns: list[str] = []
    for name in map(str.strip, names):
        columns.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return replace(dialect, columns=tuple(columns)) if any(columns) else None


def _regularity(dialect: Dialect, lines: list[str]) -> float:
    """The share of the first rows that are as long as the header; the last may be cut off."""
    reader = dialect.reader(iter(lines[dialect.skipped :]))
    rows = good = 0
    while rows < _ROWS_LOOKED_AT:
        try:
            fields = next(reader, None)
        except csv.Error:
            fields = [] if reader.line_num < len(lines) - dialect.skipped else None
        if fields is None:
            break
        rows += 1
        good += len(fields) == len(dialect.columns)
    return good / max(1, rows)


def _plain_fields(dialect: Dialect, row: list[str]) -> list[str] | None:
    """The fields of a line in which quotes are letters, as TSV without quoting has them."""
    if dialect.delimiter != "\t":
        return None
    fields = row[0].rstrip("\r\n").split("\t")
    return fields if len(row) == 1 and len(fields) == len(dialect.columns) else None


def _torn(path: str, lines: _Lines, dialect: Dialect, error: csv.Error) -> RejectedRow:
    """Rejects the row that could not be read, and gives back the lines that are none of it."""
    first, *rest = lines.row
    message = str(error).replace("\t", "\\t")
    excerpt = _printable(first[:EXCERPT_CHARACTERS])
    if rest and _regularity(replace(dialect, skipped=0), rest[:_ROWS_LOOKED_AT]) > 0.5:
        lines.give_back(rest)
        reason = f"invalid CSV: {message}: a quote is opened here and not closed"
    elif rest:
        reason = (
            f"invalid CSV: {message}: a quote is opened here and not closed; with it "
            f"{len(lines.row):,} lines are lost, up to line {lines.number}"
        )
    else:
        reason = f"invalid CSV: {message}"
    return RejectedRow(path, lines.first, reason, excerpt)


def _problem(fields: list[str], columns: tuple[str, ...]) -> str:
    if len(fields) != len(columns):
        return f"{len(fields)} fields where the header has {len(columns)}"
    for name, value in zip(columns, fields, strict=True):
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                byte = ord(value[error.start]) - 0xDC00
                return f"not UTF-8: byte 0x{byte:02x} in column {name!r}"
    return ""


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

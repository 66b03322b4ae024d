"""Lines of text files, in batches of bounded size, each with its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from slm_vllm.datasets.reading.opening import DamagedArchiveError, open_bytes, reading_failed
from slm_vllm.datasets.reading.recognition import UTF8_BOM
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

MAX_BATCH_BYTES = 16 << 20
MAX_LINE_BYTES = 256 << 20
_JUDGED_LINES = 100  # after so many lines it is decided whether the file is UTF-8 at all


class Line(NamedTuple):
    """One line without its line break; `number` counts from 1."""

    number: int
    text: str


def line_batches(
    path: str,
    reject: Callable[[RejectedRow], None],
    *,
    max_rows: int = 256,
    max_bytes: int = MAX_BATCH_BYTES,
) -> Iterator[list[Line]]:
    """Yields the lines of a file, packed or not, that are not blank.

    Args:
        path: The file. A UTF-8 byte order mark is left out.
        reject: Called for each line that is not UTF-8.
        max_rows: Most lines in a batch.
        max_bytes: Most bytes in a batch; a single longer line comes alone.

    Raises:
        DataError: The file is missing, empty, mostly not UTF-8, a damaged archive, or has
            a line of more than 256 MB. Raised when the damage is reached.
    """
    batch: list[Line] = []
    size = 0
    try:
        for number, offset, raw in _raw_lines(path):
            if batch and (len(batch) >= max_rows or size + len(raw) > max_bytes):
                yield batch
                batch, size = [], 0
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                reject(_not_utf8(path, number, offset, raw, error))
                continue
            if text.strip():
                batch.append(Line(number, text))
                size += len(raw)
    except DataError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _not_utf8(
    path: str, number: int, offset: int, raw: bytes, error: UnicodeDecodeError
) -> RejectedRow:
    reason = f"not UTF-8: byte 0x{raw[error.start]:02x} at byte offset {offset + error.start}"
    excerpt = raw[:EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace")
    return RejectedRow(path, number, reason, excerpt)


def _raw_lines(path: str) -> Iterator[tuple[int, int, bytes]]:
    """Yields line number, byte offset in the decompressed file, and bytes of each line."""
    number = offset = undecodable = 0
    with open_bytes(path) as file:
        while raw := _read_line(file, path, number):
            number += 1
            start, content = 0, raw.rstrip(b"\r\n")
            if number == 1:
                start = len(UTF8_BOM) if raw.startswith(UTF8_BOM) else 0
            if number <= _JUDGED_LINES:
                undecodable += not _is_utf8(content)
                if number == _JUDGED_LINES:
                    _judge_encoding(path, undecodable, number)
            yield number, offset + start, content[start:]
            offset += len(raw)
    if number < _JUDGED_LINES:
        _judge_encoding(path, undecodable, number)


def _read_line(file: BinaryIO, path: str, number: int) -> bytes:
    try:
        raw = file.readline(MAX_LINE_BYTES)
    except (DamagedArchiveError, OSError) as error:
        raise reading_failed(path, error, f"line {number}") from error
    if len(raw) >= MAX_LINE_BYTES:
        raise DataError(
            f"{path}: line {number + 1} is longer than {MAX_LINE_BYTES >> 20} MB. "
            "Is it a file with one JSON object a line?"
        )
    return raw


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _judge_encoding(path: str, undecodable: int, number: int) -> None:
    if undecodable * 2 > number:
        raise DataError(
            f"{path} is not UTF-8 ({undecodable} of its first {number} lines cannot be decoded); "
            "probably Windows-1252 or Latin-1. Convert it with: "
            f"iconv -f WINDOWS-1252 -t UTF-8 '{path}' > converted"
        )

"""JSON objects out of lines, and out of files that are one large array."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from slm_vllm.datasets.reading.lines import Line
from slm_vllm.datasets.reading.opening import DAMAGE, UTF8_BOM, check_encoding, open_bytes
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

Reject = Callable[[RejectedRow], None]

_CHUNK_CHARACTERS = 1 << 20
_MAX_VALUE_CHARACTERS = 256 << 20
# A value cut off by the end of the buffer fails within an escape or literal of this length.
_TORN_CHARACTERS = 16


class JsonRow(NamedTuple):
    """An object, the line it begins on, and the key of the array it stands in ("" at the top)."""

    line: int
    value: dict[str, Any]
    section: str = ""


def decode_lines(
    path: str,
    lines: list[Line],
    reject: Reject,
    dtype: pl.Struct | None = None,
) -> list[JsonRow]:
    """Decodes lines that hold one JSON object each; bad ones are rejected with the reason.

    Args:
        path: The file, for messages.
        lines: The lines.
        reject: Takes the bad ones.
        dtype: The keys wanted, with types. With it polars decodes the whole batch at once; missing
            keys become None, others are left out. Without it each object keeps all its keys.
    """
    if dtype is not None and not any(_may_hold_surrogate(line.text) for line in lines):
        try:
            values = _decode_series([line.text for line in lines], dtype)
        except pl.exceptions.PolarsError:
            values = []
        decoded = [value for value in values if value is not None]
        if len(decoded) == len(lines):
            return [JsonRow(line.number, row) for line, row in zip(lines, decoded, strict=True)]
    rows = []
    for line in lines:
        try:
            rows.append(JsonRow(line.number, _decode_line(line.text, dtype)))
        except ValueError as error:
            excerpt = line.text[:EXCERPT_CHARACTERS]
            reject(RejectedRow(path, line.number, str(error), excerpt))
    return rows


def array_rows(path: str, reject: Reject, sections: tuple[str, ...] = ()) -> Iterator[JsonRow]:
    """Yields the objects of a file that is one JSON array, in bounded memory.

    Args:
        path: The file; compressed ones are read as well.
        reject: Takes elements that are not objects.
        sections: The file may be an object instead, with the arrays under these keys.

    Raises:
        DataError: The JSON is damaged; the line and column are given.
    """
    reader = _JsonReader(path)
    for section in _sections(reader, sections):
        for line, value in reader.elements():
            if isinstance(value, dict) and not _holds_lone_surrogate(value):
                yield JsonRow(line, value, section)
                continue
            reason = "a lone surrogate in a text"
            if not isinstance(value, dict):
                reason = f"a JSON {_json_type(value)}, not an object"
            reject(RejectedRow(path, line, reason, repr(value)[:EXCERPT_CHARACTERS]))


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
    if _may_hold_surrogate(text) and _holds_lone_surrogate(value):
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
        raise ValueError(f"a JSON {_json_type(value)}, not an object")
    return value


def _type_problem(message: str) -> str:
    first = message.split("\n")[0].removeprefix("error deserializing JSON: ")
    return f"wrong type: {first[:200]}"


def _json_type(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null", dict: "object"}
    return names.get(type(value), "number")


def _may_hold_surrogate(text: str) -> bool:
    if "\\" not in text:
        return False
    # Three times as fast as two searches for "\\ud" and "\\uD" in a line of some hundred KB.
    line = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    at = np.flatnonzero(line[:-2] == ord("\\"))
    at = at[line[at + 1] == ord("u")]
    return bool((line[at + 2] | 32 == ord("d")).any())


def _holds_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _sections(reader: _JsonReader, sections: tuple[str, ...]) -> Iterator[str]:
    """Puts the reader before each array of rows in turn and yields its key."""
    if reader.peek() == "[":
        yield ""
        return
    if reader.peek() != "{":
        raise reader.error("neither an array nor an object")
    reader.skip()
    found = False
    while reader.peek() != "}":
        key = reader.value()
        reader.expect(":")
        if key in sections and reader.peek() == "[":
            found = True
            yield key
        else:
            reader.value()
        if reader.peek() == ",":
            reader.skip()
        elif reader.peek() != "}":
            raise reader.error("',' or '}' expected")
    if not found:
        raise reader.error(f"no array under {' or '.join(map(repr, sections)) or 'any key'}")


class _JsonReader:
    """A cursor over JSON text of which only a part is in memory."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._decoder = json.JSONDecoder()
        self._chunks = _text_chunks(path)
        self._buffer = ""
        self._at = 0
        self._counted = 0  # up to here line breaks of the buffer are in _line
        self._line = 1

    def error(self, problem: str) -> DataError:
        column = self._at - self._buffer.rfind("\n", 0, self._at)
        return DataError(
            f"{self.path}: invalid JSON at line {self.line}, column {column}: {problem}. "
            "Convert or fetch the file again."
        )

    @property
    def line(self) -> int:
        self._line += self._buffer.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """Gives the next character that is not white space, "" at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._fill():
                return ""

    def skip(self) -> None:
        self._at += 1

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise self.error(f"{character!r} expected")
        self.skip()

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                torn = error.msg.startswith("Unterminated") or (
                    len(self._buffer) - error.pos < _TORN_CHARACTERS
                )
                # A longer look each time, so that a long value is not decoded many times over.
                if not torn or not self._fill(len(self._buffer) - self._at):
                    self._at = error.pos
                    raise self.error(error.msg) from error
                continue
            except RecursionError:
                raise self.error("nested too deeply") from None
            # A number that ends where the buffer ends may go on.
            if end == len(self._buffer) and self._fill():
                continue
            self._at = end
            return value

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Yields line and value of the array the cursor stands before, and ends behind it."""
        self.expect("[")
        if self.peek() == "]":
            self.skip()
            return
        while True:
            self.peek()
            line = self.line
            yield line, self.value()
            if self.peek() == "]":
                self.skip()
                return
            self.expect(",")

    def _fill(self, n_characters: int = 0) -> bool:
        """Reads at least one more chunk; False at the end of the file."""
        _ = self.line
        pieces = [self._buffer[self._at :]]
        added = 0
        for chunk in self._chunks:
            pieces.append(chunk)
            added += len(chunk)
            if added >= n_characters:
                break
        if not added:
            return False
        self._buffer, self._at, self._counted = "".join(pieces), 0, 0
        if len(self._buffer) > _MAX_VALUE_CHARACTERS:
            raise self.error(f"a value over {_MAX_VALUE_CHARACTERS >> 20} MB")
        return True


def _text_chunks(path: str) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with open_bytes(path) as file:
        while True:
            try:
                raw = file.read(_CHUNK_CHARACTERS)
                if offset == 0:
                    check_encoding(path, raw[:4096])
                    raw = raw.removeprefix(UTF8_BOM)
                text = decode.decode(raw, final=not raw)
            except DAMAGE as error:
                raise DataError(
                    f"{path}: the archive is truncated or corrupt after {offset:,} bytes "
                    f"({error}). Fetch the file again and compare its size or checksum."
                ) from error
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path} is not UTF-8: near byte offset {offset + error.start}. Convert it "
                    f"with: iconv -f WINDOWS-1252 -t UTF-8 '{path}' > converted"
                ) from error
            if text:
                yield text
            if not raw:
                return
            offset += len(raw)

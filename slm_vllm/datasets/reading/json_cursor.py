"""A cursor over JSON text of which only a part is in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from slm_vllm.datasets.reading.opening import DamagedArchiveError, open_bytes, reading_failed
from slm_vllm.datasets.reading.recognition import UTF8_BOM
from slm_vllm.errors import DataError

CHUNK_BYTES = 1 << 20
_MAX_VALUE_CHARACTERS = 256 << 20
# A value cut off by the end of the buffer fails within an escape or literal of this length.
_TORN_CHARACTERS = 16
_BLANK = re.compile(r"[ \t\r\n]*")


class JsonCursor:
    """Walks through the JSON text of a file, packed or not.

    Every method raises `DataError` where the text is damaged, with line and column.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._decoder = json.JSONDecoder()
        self._chunks = _text_chunks(path)
        self._buffer = ""
        self._at = 0
        self._counted = 0  # up to here line breaks of the buffer are in _line
        self._line = 1

    def error(self, problem: str) -> DataError:
        """What to raise about the place where the cursor stands."""
        column = self._at - self._buffer.rfind("\n", 0, self._at)
        return DataError(
            f"{self.path}: invalid JSON at line {self.line}, column {column}: {problem}. "
            "Convert or fetch the file again."
        )

    @property
    def line(self) -> int:
        """The line the cursor stands on, from 1."""
        self._line += self._buffer.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """Gives the next character that is not white space, "" at the end."""
        while True:
            self._at = _blank_until(self._buffer, self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Passes over the character that `peek` gave."""
        self._at += 1

    def value(self) -> Any:
        """Decodes the value the cursor stands before, and passes over it."""
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

    def ahead(self) -> dict[str, Any] | None:
        """Decodes the object ahead, or the first one of an array ahead, and stays before it.

        None where there is none, or none that is whole.
        """
        opening = self.peek()
        while True:
            at = self._at
            if opening == "[":
                at = _blank_until(self._buffer, at + 1)
            if at < len(self._buffer):
                if self._buffer[at] != "{":
                    return None
                try:
                    value: dict[str, Any] = self._decoder.raw_decode(self._buffer, at)[0]
                    return value
                except ValueError:
                    pass  # it may go on behind the buffer
                except RecursionError:
                    return None
            if not self._fill(len(self._buffer) - self._at):
                return None

    def items(self) -> Iterator[str]:
        """Walks the object the cursor stands before: yields each key with its value ahead."""
        self._expect("{")
        if self._ends("}"):
            return
        while True:
            if self.peek() != '"':
                raise self.error("a key in double quotes expected")
            key = self.value()
            self._expect(":")
            yield key
            if self._ends("}"):
                return
            self._expect(",")

    def elements(self) -> Iterator[int]:
        """Walks the array the cursor stands before: yields the line of each value ahead."""
        self._expect("[")
        if self._ends("]"):
            return
        while True:
            self.peek()
            yield self.line
            if self._ends("]"):
                return
            self._expect(",")

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise self.error(f"{character!r} expected")
        self.skip()

    def _ends(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self.skip()
        return True

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


def _blank_until(text: str, at: int) -> int:
    """The place of the next character that is not white space."""
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _text_chunks(path: str) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with open_bytes(path) as file:
        while True:
            try:
                raw = file.read(CHUNK_BYTES)
                text = decode.decode(raw.removeprefix(UTF8_BOM) if not offset else raw, not raw)
            except (DamagedArchiveError, OSError) as error:
                raise reading_failed(path, error, f"{offset:,} bytes") from error
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

"""The record that every reader yields: an object and its position in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.types import RejectedRow

Reject = Callable[[RejectedRow], None]

IsRow = Callable[[Mapping[str, Any]], bool]
"""Says of an object's keys whether it is a row of questions, and not something around rows."""


class Place(NamedTuple):
    """Where a row stands in its file.

    Attributes:
        line: The line it begins on, from 1; its number in a file without lines.
        number: Which row of the file it is, from 1, where many may stand on one line; else 0.
    """

    line: int
    number: int = 0

    def rejected(self, path: str, reason: str, excerpt: str) -> RejectedRow:
        """What becomes of a row that cannot be used."""
        row = f" (row {self.number:,})" if self.number else ""
        return RejectedRow(path, self.line, reason + row, excerpt[:EXCERPT_CHARACTERS])


class Record(NamedTuple):
    """One object of a file.

    Attributes:
        place: Where it begins.
        value: Its fields.
        section: The key of the array it stands in, "" at the top.
        text: Its whole line, where `value` holds only the keys that were asked for.
    """

    place: Place
    value: Any
    section: str = ""
    text: str = ""


def ignore(row: RejectedRow) -> None:
    """For a first look: the scan itself reports what is wrong with a row."""

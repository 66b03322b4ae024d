"""What every reader gives: an object, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from slm_vllm.types import RejectedRow

Reject = Callable[[RejectedRow], None]

IsRow = Callable[[Mapping[str, Any]], bool]
"""Says of an object's keys whether it is a row of questions, and not something around rows."""


class Record(NamedTuple):
    """One object of a file.

    Attributes:
        line: The line it begins on, from 1; its number in a file without lines.
        value: Its fields.
        section: The key of the array it stands in, "" at the top.
        text: Its whole line, where `value` holds only the keys that were asked for.
    """

    line: int
    value: dict[str, Any]
    section: str = ""
    text: str = ""


def ignore(row: RejectedRow) -> None:
    """For a first look: the scan itself reports what is wrong with a row."""

"""A finding of a check of a machine, a bucket or a server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        name: What was looked at.
        status: "fail": runs will not work; "warn": they may not, or will be slow; "skipped": it
            was not reached; "ok".
        found: What is there.
        fix: What to do; empty when nothing needs doing, or when `found` says it.
    """

    name: str
    status: Status
    found: str = ""
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Gives the finding as plain values."""
        return asdict(self)

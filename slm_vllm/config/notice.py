"""Notices about how a configuration was read, each shown once.

One command composes the configurations of several runs, and mostly of the same files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)

SAID: set[str] = set()
"""What this process has said."""


def say_once(text: str) -> None:
    """Says it on standard error, unless that was done before."""
    if text not in SAID:
        SAID.add(text)
        log.warning("%s", text)


def say_new(about: str, lines: Sequence[str]) -> None:
    """Says those of the lines that were not said before, below what they are about."""
    new = [line for line in dict.fromkeys(lines) if line not in SAID]
    if new:
        SAID.update(new)
        log.warning("%s", "\n  ".join([f"{about}:", *new]))

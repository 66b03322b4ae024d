"""The closest valid word, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str]) -> str:
    """A phrase that names the closest valid word and then all of them."""
    names = list(valid)
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.5)
    hint = f"Did you mean '{folded[close[0]]}'? " if close else ""
    return f"{hint}Valid: {', '.join(names)}"

"""The closest valid words, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str]) -> str:
    """A phrase that names the closest valid word and then all of them."""
    names = list(valid)
    close = close_names(word, names, 1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Valid: {', '.join(names)}"


def close_names(word: str, valid: Iterable[str], n: int = 3) -> list[str]:
    """The valid words that look most like a word, at most `n`, the closest first."""
    by_folded: dict[str, list[str]] = {}
    for name in valid:
        by_folded.setdefault(name.lower(), []).append(name)
    close = difflib.get_close_matches(word.lower(), by_folded, n=n, cutoff=0.5)
    return [name for folded in close for name in by_folded[folded]][:n]

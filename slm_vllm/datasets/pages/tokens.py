"""Access to the tokens of a page by number, without splitting the whole page."""

from __future__ import annotations

import numpy as np

from slm_vllm.datasets.pages.detokenise import code_points, odd_blanks


class PageTokens:
    """What `page.split()` gives, at a tenth of the time: a page has tens of thousands of tokens.

    Args:
        page: The tokens, parted by white space of any kind.
    """

    def __init__(self, page: str) -> None:
        codes = code_points(page)
        if odd_blanks(codes):
            page = " ".join(page.split())
            codes = code_points(page)
        self._page = page
        inside = (codes != 32) & (codes != 10)
        begins = inside.copy()
        begins[1:] &= ~inside[:-1]
        self._starts = np.flatnonzero(begins)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, at: int) -> str:
        return self.text(at, at + 1)

    def text(self, start: int, end: int) -> str:
        """Gives `" ".join(page.split()[start:end])`; neither may be negative."""
        if start >= min(end, len(self)):
            return ""
        stop = self._starts[end] if end < len(self) else None
        return " ".join(self._page[self._starts[start] : stop].split())

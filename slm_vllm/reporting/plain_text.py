"""Text of any origin, made safe to show."""

from __future__ import annotations

import html
import re

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """Puts a sign in the place of each character that HTML cannot hold or nobody can see.

    Control characters become their Unicode pictures (NUL is ␀), lone surrogates and others U+FFFD.
    """
    return _UNSEEN.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def escaped(text: object) -> str:
    """Any value as HTML text or attribute."""
    return html.escape(visible(str(text)))

"""Ids that depend on content alone, so that row order, file layout and machine do not matter."""

from __future__ import annotations

import hashlib


def content_id(prefix: str, *parts: str, digits: int = 12) -> str:
    """Gives "<prefix>-<hex digits>" from a hash of the parts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return f"{prefix}-{digest.hexdigest()[:digits]}"


def document_id(url: str, title: str, text: str) -> str:
    """Gives the id of a document; the same page in two rows gets the same id.

    The text is part of it, because one URL can stand for several revisions or extracts.
    """
    return content_id("doc", url, title, text, digits=16)

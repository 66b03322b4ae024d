"""Identities of rows, documents and files.

Ids of rows and documents depend on content alone, so that row order, file layout and machine do not
matter.
"""

from __future__ import annotations

import hashlib
import os
from glob import glob
from pathlib import Path
from typing import Any

from slm_vllm.durable import samples, sha256_of

_HASHED_WHOLE_BYTES = 1 << 28
_END_BYTES = 1 << 24


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


def dataset_identity(path: str) -> dict[str, Any]:
    """Path, size and hash of a dataset file, for the manifest and the index store.

    Of a file over 256 MiB only the ends are hashed, beside its size and time of change. A folder,
    or a path with `*`, is known by the files in it.
    """
    file = Path(path)
    if "://" not in path and (os.path.isdir(path) or "*" in file.name):
        inside = file.rglob("*") if os.path.isdir(path) else map(Path, glob(path, recursive=True))
        files = [_file_identity(part) for part in sorted(inside) if part.is_file()]
        return {"path": str(file.resolve()), "files": files}
    if "://" in path or not os.path.isfile(path):
        return {"path": path}
    return _file_identity(file)


def _file_identity(file: Path) -> dict[str, Any]:
    status = file.stat()
    known: dict[str, Any] = {"path": str(file.resolve()), "bytes": status.st_size}
    if status.st_size <= _HASHED_WHOLE_BYTES:
        return {**known, "sha256": sha256_of(file)}
    ends = hashlib.sha256(b"".join(samples(file, 2, _END_BYTES)))
    ends.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return {**known, "sha256_of_ends": ends.hexdigest()}

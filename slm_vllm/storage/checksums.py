"""Whether a file and an object hold the same bytes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from slm_vllm.storage.bucket import Bucket, RemoteObject

_BUFFER = 1 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"[0-9a-f]{32}-(\d+)")
_DATE_SECONDS = 2.0


def compare(path: Path, remote: RemoteObject, bucket: Bucket) -> tuple[bool, str]:
    """Compares a file with an object, by the strongest sign that the object offers.

    Returns:
        Whether they are the same, and by what that was told: "MD5", "SHA-256", "MD5 of parts" or,
        where the object has no checksum, "size".
    """
    if path.stat().st_size != remote.size:
        return False, "size"
    if _MD5.fullmatch(remote.etag) and not remote.encrypted:
        return _digest(path, "md5") == remote.etag, "MD5"
    if remote.sha256:
        return _digest(path, "sha256") == remote.sha256, "SHA-256"
    parts = _PARTS.fullmatch(remote.etag)
    part_size = _part_size(remote, bucket, int(parts[1])) if parts else None
    if part_size is not None and not remote.encrypted:
        return parts_etag(part_md5s(path, part_size)) == remote.etag, "MD5 of parts"
    return True, "size"


def same_file(path: Path, remote: RemoteObject, bucket: Bucket) -> str | None:
    """Says by what a file is known to be the object already; None where it is not.

    Where sizes are all there is to compare, the time that a download gave the file has to agree.
    """
    same, how = compare(path, remote, bucket)
    if not same:
        return None
    if how == "size":
        age = abs(path.stat().st_mtime - remote.last_modified.timestamp())
        return "size and date" if age < _DATE_SECONDS else None
    return how


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return _digest(path, "sha256")


def md5_of(path: Path, start: int, length: int) -> bytes:
    """The MD5 of one stretch of a file."""
    md5 = hashlib.md5(usedforsecurity=False)
    for block in _blocks(path, start, length):
        md5.update(block)
    return md5.digest()


def part_md5s(path: Path, part_size: int) -> list[bytes]:
    """The MD5 of each part of a file."""
    size = path.stat().st_size
    return [md5_of(path, at, min(part_size, size - at)) for at in range(0, size, part_size)]


def parts_etag(md5s: list[bytes]) -> str:
    """The ETag of an object that came in parts: the MD5 of their MD5s, and their number."""
    return f"{hashlib.md5(b''.join(md5s), usedforsecurity=False).hexdigest()}-{len(md5s)}"


def _part_size(remote: RemoteObject, bucket: Bucket, n_parts: int) -> int | None:
    """Asks how long the first part is; None where the server does not say so believably."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        head = bucket.client.head_object(Bucket=bucket.name, Key=remote.key, PartNumber=1)
    except (BotoCoreError, ClientError):
        return None
    size = int(head["ContentLength"])
    if size == 0 or -(-remote.size // size) != n_parts:
        return None
    return size


def _digest(path: Path, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    for block in _blocks(path, 0, None):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path, start: int, length: int | None) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_BUFFER))
    left = path.stat().st_size - start if length is None else length
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while left > 0:
            n = os.preadv(descriptor, [buffer[: min(left, _BUFFER)]], start)
            if n == 0:
                return
            yield buffer[:n]
            start, left = start + n, left - n
    finally:
        os.close(descriptor)

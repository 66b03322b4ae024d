"""Whether a file and an object hold the same bytes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from slm_vllm.durable import blocks
from slm_vllm.storage.bucket import Bucket, RemoteObject

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
    checksum = checksum_of(remote, bucket)
    if checksum is None:
        return True, "size"
    for block in blocks(path):
        checksum.update(block)
    return checksum.matches(), checksum.name


def checksum_of(remote: RemoteObject, bucket: Bucket) -> Checksum | None:
    """The strongest checksum that an object offers, not fed yet; None where it has none."""
    if _MD5.fullmatch(remote.etag) and not remote.encrypted:
        return Checksum("MD5", remote.etag)
    if remote.sha256:
        return Checksum("SHA-256", remote.sha256)
    parts = _PARTS.fullmatch(remote.etag)
    part_size = _part_size(remote, bucket, int(parts[1])) if parts else None
    if part_size is not None and not remote.encrypted:
        return Checksum("MD5 of parts", remote.etag, part_size)
    return None


class Checksum:
    """A checksum that a file should have, fed with its bytes in order.

    Args:
        name: "MD5", "SHA-256" or "MD5 of parts".
        expected: What the object says.
        part_size: Of the object, where its checksum is one of parts.
    """

    def __init__(self, name: str, expected: str, part_size: int = 0) -> None:
        self.name = name
        self._expected, self._part_size = expected, part_size
        self._digest = _new("sha256" if name == "SHA-256" else "md5")
        self._md5s: list[bytes] = []
        self._in_part = 0

    def update(self, block: memoryview) -> None:
        """Takes the next bytes of the file."""
        while self._part_size and self._in_part + len(block) >= self._part_size:
            rest = self._part_size - self._in_part
            self._digest.update(block[:rest])
            self._end_part()
            block = block[rest:]
        self._digest.update(block)
        self._in_part += len(block)

    def matches(self) -> bool:
        """Whether the bytes so far are those of the object."""
        if not self._part_size:
            return str(self._digest.hexdigest()) == self._expected
        if self._in_part:
            self._end_part()
        return parts_etag(self._md5s) == self._expected

    def _end_part(self) -> None:
        self._md5s.append(self._digest.digest())
        self._digest = _new("md5")
        self._in_part = 0


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


def md5_of(path: Path, start: int, length: int) -> bytes:
    """The MD5 of one stretch of a file."""
    md5 = _new("md5")
    for block in blocks(path, start, length):
        md5.update(block)
    return bytes(md5.digest())


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


def _new(name: str) -> Any:
    return hashlib.new(name, usedforsecurity=False)

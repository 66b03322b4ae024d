"""Checks whether a file and an object have the same content."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from slm_vllm.durable import blocks, sha256_of
from slm_vllm.storage.bucket import Bucket, RemoteObject

_MD5 = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"[0-9a-f]{32}-(\d+)")
_DATE_SECONDS = 2.0
_MIB = 1 << 20
_USUAL_MIB = (5, 8, 10, 15, 16, 32, 50, 64, 100, 128, 256, 512)
"""Part sizes of boto3, the AWS command line, s3cmd, mc, rclone and their like."""
_MOST_TRIED = 8


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
    return verdict(checksum, path, remote)


def verdict(checksum: Checksum, path: Path, remote: RemoteObject) -> tuple[bool, str]:
    """Whether a file is an object, once its checksum has seen all of the file's bytes.

    Returns:
        As `compare`.
    """
    if checksum.matches():
        return True, checksum.name
    if remote.sha256 is not None and checksum.name != "SHA-256":
        # Nothing says that an ETag has to be an MD5, whatever it looks like.
        return sha256_of(path) == remote.sha256, "SHA-256"
    return (False, checksum.name) if checksum.certain else (True, "size")


def checksum_of(remote: RemoteObject, bucket: Bucket) -> Checksum | None:
    """The strongest checksum that an object offers, not fed yet; None where it has none."""
    if _MD5.fullmatch(remote.etag) and not remote.encrypted:
        return Checksum("MD5", remote.etag)
    if remote.sha256:
        return Checksum("SHA-256", remote.sha256)
    parts = _PARTS.fullmatch(remote.etag)
    if parts is None or remote.encrypted:
        return None
    part_size = _part_size(remote, bucket, int(parts[1]))
    if part_size is not None:
        return Checksum("MD5 of parts", remote.etag, part_size)
    sizes = likely_part_sizes(remote.size, int(parts[1]))
    return Guess([Checksum("MD5 of parts", remote.etag, size) for size in sizes]) if sizes else None


def likely_part_sizes(size: int, n_parts: int) -> list[int]:
    """The part sizes that common tools may have used for an object, a handful at most."""
    if n_parts == 1:
        return [size] if size else []
    smallest = -(-size // n_parts)
    usual = [mib * _MIB for mib in _USUAL_MIB]
    whole = range(-(-smallest // _MIB) * _MIB, -(-size // (n_parts - 1)), _MIB)
    candidates = whole if len(whole) <= _MOST_TRIED else usual
    return [part for part in candidates if -(-size // part) == n_parts]


class Checksum:
    """A checksum that a file should have, fed with its bytes in order.

    Args:
        name: "MD5", "SHA-256" or "MD5 of parts".
        expected: What the object says.
        part_size: Of the object, where its checksum is one of parts.

    Attributes:
        certain: Whether another value means other bytes.
    """

    certain = True

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
        return self.value() == self._expected

    def value(self) -> str:
        """The checksum of the bytes so far."""
        if not self._part_size:
            return str(self._digest.hexdigest())
        if self._in_part:
            self._end_part()
        return parts_etag(self._md5s)

    def _end_part(self) -> None:
        self._md5s.append(self._digest.digest())
        self._digest = _new("md5")
        self._in_part = 0


class Guess(Checksum):
    """Several checksums of parts, one for each size that the parts may have, in one reading."""

    certain = False

    def __init__(self, checksums: list[Checksum]) -> None:
        self.name = checksums[0].name
        self._checksums = checksums

    def update(self, block: memoryview) -> None:
        """Takes the next bytes of the file."""
        for checksum in self._checksums:
            checksum.update(block)

    def matches(self) -> bool:
        """Whether the bytes so far are those of the object for one of the sizes."""
        return any([checksum.matches() for checksum in self._checksums])


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

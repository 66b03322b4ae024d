"""Which of the known dataset files a bucket has, and whether their first rows can be read."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_vllm.datasets.known_files import KNOWN_FILES, KnownFile
from slm_vllm.errors import SlmVllmError
from slm_vllm.storage.bucket import Bucket, RemoteObject

_HEAD_BYTES = 4 << 20
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}"]')


@dataclass(frozen=True, slots=True)
class FileState:
    """What a bucket has of one known file.

    Attributes:
        file: The file.
        key: Where it belongs.
        found: None where it is missing.
        problem: Why its first rows cannot be used; None where they can.
    """

    file: KnownFile
    key: str
    found: RemoteObject | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives the state as plain values."""
        about = self.found.to_json() if self.found else {"key": self.key}
        kind = {"kind": self.file.kind, "raw": self.file.raw, "required": self.file.required}
        usable = self.found is not None and self.problem is None
        return {**about, **kind, "present": self.found is not None, "usable": usable} | (
            {"problem": self.problem} if self.problem else {}
        )


def survey_known(bucket: Bucket, prefix: str) -> list[FileState]:
    """Looks for every known file and reads the first rows of those that are there."""
    return [_survey(bucket, file, prefix + file.name) for file in KNOWN_FILES]


def _survey(bucket: Bucket, file: KnownFile, key: str) -> FileState:
    found = bucket.find(key)
    if found is None:
        return FileState(file, key, None)
    if file.name.endswith(".parquet"):
        # Its description is at the end; the beginning alone says little.
        return FileState(file, key, found, _parquet_problem(bucket, found))
    try:
        rows = _first_rows(bucket, file, found)
    except SlmVllmError as error:
        return FileState(file, key, found, str(error).replace("\n", " "))
    return FileState(file, key, found, None if rows else "no usable row at its beginning")


def _first_rows(bucket: Bucket, file: KnownFile, found: RemoteObject) -> int:
    """Reads the beginning of an object with the reader that a run would use."""
    from slm_vllm.datasets.registry import open_dataset
    from slm_vllm.errors import DataError

    if found.size == 0:
        raise DataError("it is empty")
    head = bucket.read_range(found.key, 0, min(found.size, _HEAD_BYTES))
    if file.name.endswith(".json") and found.size > len(head):
        head = closed_json(head)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file.name
        path.write_bytes(head)
        try:
            frame = next(iter(open_dataset(file.kind, path).scan(1, with_documents=False)), None)
        except DataError as error:
            raise DataError(str(error).replace(str(path), found.key)) from None
    return 0 if frame is None else frame.height


def _parquet_problem(bucket: Bucket, found: RemoteObject) -> str | None:
    if found.size < 12:
        return "it is too short for a Parquet file"
    ends = bucket.read_range(found.key, 0, 4), bucket.read_range(found.key, found.size - 4, 4)
    return None if ends == (b"PAR1", b"PAR1") else "it is not a whole Parquet file"


def closed_json(head: bytes) -> bytes:
    """Ends the beginning of a JSON file after its last whole element, so that it is JSON again."""
    closers: list[bytes] = []
    whole: tuple[int, bytes] | None = None
    for token in _JSON_TOKEN.finditer(head):
        sign = token[0]
        if sign == b'"':
            break  # a string that the cut went through
        if sign in (b"[", b"{"):
            closers.append(b"]" if sign == b"[" else b"}")
        elif sign in (b"]", b"}") and closers:
            closers.pop()
            # Elements of the array, or of an array in the object that the file holds.
            if closers and closers[-1] == b"]" and len(closers) <= 2:
                whole = token.end(), b"".join(reversed(closers))
    return head if whole is None else head[: whole[0]] + whole[1]

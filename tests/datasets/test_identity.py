from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from slm_vllm.datasets import identity
from slm_vllm.datasets.identity import dataset_identity


def test_a_file_is_hashed_whole(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"rows")
    assert dataset_identity(str(path)) == {
        "path": str(path.resolve()),
        "bytes": 4,
        "sha256": hashlib.sha256(b"rows").hexdigest(),
    }


def test_of_a_large_file_the_ends_the_size_and_the_date_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_HASHED_WHOLE_BYTES", 9)
    monkeypatch.setattr(identity, "_END_BYTES", 4)
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"0123456789")
    os.utime(path, ns=(1, 1_700_000_000_000_000_000))
    expected = hashlib.sha256(b"0123" + b"6789" + b"10 1700000000000000000").hexdigest()
    assert dataset_identity(str(path))["sha256_of_ends"] == expected


@pytest.mark.parametrize("path", ["s3://bucket/key", "hf://datasets/a/b", "missing.jsonl"])
def test_what_is_no_file_here_is_only_named(path: str) -> None:
    assert dataset_identity(path) == {"path": path}

"""Checksums fed while parts arrive, against hashlib over the whole."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.storage.checksums import Checksum
from slm_vllm.storage.parts import Parts
from slm_vllm.storage.streaming_checksum import StreamingChecksum


def s3_etag(content: bytes, part_size: int) -> str:
    """As Amazon describes it."""
    parts = [content[at : at + part_size] for at in range(0, len(content), part_size)]
    whole = b"".join(hashlib.md5(part).digest() for part in parts)
    return f"{hashlib.md5(whole).hexdigest()}-{len(parts)}"


@given(
    content=st.binary(min_size=1, max_size=60),
    part_size=st.integers(1, 70),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    spoilt=st.booleans(),
)
def test_a_checksum_does_not_depend_on_the_blocks(
    content: bytes, part_size: int, cuts: list[int], spoilt: bool
) -> None:
    expected = {
        "MD5": hashlib.md5(content).hexdigest(),
        "SHA-256": hashlib.sha256(content).hexdigest(),
        "MD5 of parts": s3_etag(content, part_size),
    }
    fed = bytes([content[0] ^ spoilt]) + content[1:]
    edges = sorted({0, len(fed), *(cut for cut in cuts if cut < len(fed))})
    for name, value in expected.items():
        checksum = Checksum(name, value, part_size if name == "MD5 of parts" else 0)
        for start, end in itertools.pairwise(edges):
            checksum.update(memoryview(fed)[start:end])
        assert checksum.matches() is not spoilt


@given(order=st.permutations(range(4)), there=st.sets(st.integers(0, 3)))
def test_parts_may_arrive_in_any_order(
    order: list[int], there: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = b"".join(bytes([65 + n]) * 7 for n in range(3)) + b"end"
    path = tmp_path_factory.mktemp("f") / "file"
    path.write_bytes(b"\0" * len(content))
    checksum = Checksum("SHA-256", hashlib.sha256(content).hexdigest())
    with path.open("r+b", buffering=0) as file:

        def write(number: int) -> None:
            file.seek(number * 7)
            file.write(content[number * 7 : number * 7 + 7])

        for number in there:
            write(number)
        following = StreamingChecksum(path, Parts(len(content), 7), checksum, there)
        for number in order:
            if number not in there:
                write(number)
                following.arrived(number)
    following.wait()
    assert checksum.matches()


def test_what_has_arrived_is_hashed_before_the_rest_is_there(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "file"
    path.write_bytes(b"aabb")
    fed, enough = bytearray(), threading.Event()

    class Watched(Checksum):
        def update(self, block: memoryview) -> None:
            super().update(block)
            fed.extend(block)
            enough.set()

    following = StreamingChecksum(path, Parts(4, 2), Watched("MD5", "none"), [0])
    assert enough.wait(10) and bytes(fed) == b"aa"
    following.stop()
    assert bytes(fed) == b"aa"


def test_a_file_that_vanishes_is_told(tmp_path: Path) -> None:
    following = StreamingChecksum(tmp_path / "none", Parts(4, 4), Checksum("MD5", "none"), [0])
    with pytest.raises(FileNotFoundError):
        following.wait()

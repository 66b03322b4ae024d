"""Memory of processes that were forked from one that holds a lot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from slm_vllm.monitoring import shared_pages
from slm_vllm.monitoring.memory import MIB, tree_rss
from slm_vllm.monitoring.shared_pages import SharedPages

HELD = 64 * MIB
PARENT = f"""
import os
held = bytearray(os.urandom(1) * {HELD})
for _ in range(2):
    reads, writes = os.pipe()
    if not os.fork():
        os.write(writes, b"x")
        os.read(0, 1)
        os._exit(0)
    os.read(reads, 1)
print(flush=True)
os.read(0, 1)
"""


@pytest.fixture
def family() -> Iterator[psutil.Process]:
    """A parent with two forked children."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this kernel does not tell")
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        yield psutil.Process(parent.pid)


def test_what_forked_processes_share_counts_once(family: psutil.Process) -> None:
    together, _ = tree_rss(root=family)
    once, _ = tree_rss(root=family, shared=SharedPages())
    assert together > 3 * HELD
    assert together - once == pytest.approx(2 * HELD, rel=0.2)


def test_where_the_kernel_does_not_tell_each_counts(
    family: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_pages, "_PROC", tmp_path)
    assert SharedPages().counted_again([p.pid for p in family.children()]) == 0


def test_the_same_processes_are_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def seven_bytes(pid: int) -> int:
        looked.append(pid)
        return 7

    monkeypatch.setattr(shared_pages, "_others_part", seven_bytes)
    shared = SharedPages()
    assert [shared.counted_again(pids) for pids in ([1], [1, 2], [2, 1], [1, 2, 3])] == [
        0,
        14,
        14,
        21,
    ]
    assert sorted(looked) == [1, 1, 2, 2, 3]
    monkeypatch.setattr(shared_pages, "_LOOK_SECONDS", 0.0)
    shared.counted_again([4, 5])
    looked.clear()
    assert shared.counted_again([5, 4]) == 14
    assert sorted(looked) == [4, 5]

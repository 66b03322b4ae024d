"""The files a transfer leaves beside its target."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slm_vllm.storage.partial_files import writing

THREADS = 8
TURNS = 200


@pytest.mark.slow
def test_a_place_has_one_writer_at_a_time_however_often_it_changes_hands(tmp_path: Path) -> None:
    # The lock file goes with each holder, so those who wait meet every moment of its removal.
    target = tmp_path / "file.bin"
    inside = threading.Lock()

    def take_turns() -> int:
        alone = 0
        for _ in range(TURNS):
            with writing(target):
                if inside.acquire(blocking=False):
                    os.sched_yield()
                    (tmp_path / "work").write_bytes(b"")
                    (tmp_path / "work").unlink()
                    alone += 1
                    inside.release()
        return alone

    with ThreadPoolExecutor(THREADS) as pool:
        turns = [pool.submit(take_turns) for _ in range(THREADS)]
        assert [turn.result() for turn in turns] == [TURNS] * THREADS
    assert list(tmp_path.iterdir()) == []

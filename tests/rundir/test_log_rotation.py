"""Logs that are rotated while processes write to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slm_vllm.rundir import log_rotation
from slm_vllm.rundir.log_rotation import LOGS_KEPT, rotate, rotated
from slm_vllm.runs import console
from slm_vllm.runs.console import OutputCapture


def test_every_line_is_in_one_file_and_writers_go_on(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with log.open("ab") as writer:
        for number in range(LOGS_KEPT + 1):
            writer.write(b"%d\n" % number)
            writer.flush()
            rotate(log)
        writer.write(b"last\n")
    # The oldest of four is gone.
    assert [rotated(log, age).read_text() for age in (1, 2, 3)] == ["3\n", "2\n", "1\n"]
    assert log.read_text() == "last\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run.log",
        "run.log.1",
        "run.log.2",
        "run.log.3",
    ]


def test_output_of_a_child_follows_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LOG_BYTES", 100)
    log = tmp_path / "run.log"
    code = "import sys\nfor line in sys.stdin: print(line, end='', flush=True, file=sys.stderr)"
    with OutputCapture() as capture:
        capture.capture(log)
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
            assert child.stdin is not None
            os.write(1, b"small\n")
            capture.keep_small()
            assert not rotated(log).exists()
            os.write(1, b"x" * 100 + b"\n")
            capture.keep_small()
            child.stdin.write(b"from the child\n")
        os.write(2, b"from here\n")
    assert rotated(log).read_text() == "small\n" + "x" * 100 + "\n"
    assert log.read_text() == "from the child\nfrom here\n"


def test_a_log_that_cannot_be_rotated_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(console, "LOG_BYTES", 10)
    monkeypatch.setattr(log_rotation.shutil, "copyfileobj", full)
    log, story = tmp_path / "run.log", tmp_path / "story.log"
    with OutputCapture() as capture:
        capture.write_to(story)
        capture.capture(log)
        os.write(1, b"a line of output\n")
        capture.keep_small()
        capture.keep_small()
    assert log.read_text() == "a line of output\n"
    text = story.read_text()
    assert text.count("cannot be rotated (No space left on device)") == 2  # at 10 bytes and at 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.log", "story.log"]

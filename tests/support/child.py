"""Python in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(job: subprocess.Popen[str], text: str) -> str:
    """Waits for a line of its output that holds the text; gives all lines up to it."""
    assert job.stdout is not None
    seen = ""
    while text not in seen:
        line = job.stdout.readline()
        assert line, f"it ended without {text!r}: {seen}"
        seen += line
    return seen


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    job = start_python(code, *arguments)
    out, err = job.communicate()
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)


def until(job: subprocess.Popen[Any], is_so: Callable[[], bool]) -> None:
    """Waits for what a process brings about, and leaves it the processors meanwhile."""
    while not is_so():
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"it ended with {job.wait(0.02)} before that")

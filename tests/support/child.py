"""Python in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


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

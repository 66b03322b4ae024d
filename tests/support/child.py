"""Python in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    job = start_python(code, *arguments)
    out, err = job.communicate()
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)

"""Servers in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def serving(
    words: list[str],
    sign: str,
    env: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
) -> Iterator[re.Match[str]]:
    """Starts a server, waits for the line that says it serves, and kills it in the end.

    Args:
        words: For Python.
        sign: An expression that this line matches, and no earlier one.
        env: In place of the usual environment.
        python: The interpreter.

    Yields:
        The match.
    """
    process = subprocess.Popen(
        [python, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(env) if env else None,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if found := re.search(sign, line):
                break
        else:
            raise RuntimeError(f"{words} did not start: {''.join(seen)[-3000:]}")
        # A pipe that nobody reads would stop the server when it is full.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

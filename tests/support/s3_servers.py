"""S3 servers in processes of their own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from slm_vllm.storage.settings import S3Settings

PART = 256 << 10
"""The smallest part that moto is told to accept; Amazon wants 5 MiB."""

ACCESS, SECRET = "tester-access", "tester-secret-5d1"


def settings_for(endpoint: str, bucket: str | None = None, **changes: object) -> S3Settings:
    values: dict[str, object] = {
        "endpoint": endpoint,
        "bucket": bucket,
        "access_key": ACCESS,
        "secret_key": SECRET,
        "region": "us-east-1",
        "path_style": True,
        "verify_ssl": True,
        "profile": None,
        "credentials_from": "the test",
    }
    return S3Settings(**{**values, **changes})  # type: ignore[arg-type]


@contextmanager
def serving(words: list[str], env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Starts a server that chooses its own port and says so; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(env) if env else None,
    )
    assert process.stdout is not None
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line, re.IGNORECASE):
                break
        else:
            raise RuntimeError(f"{words} did not start: {''.join(seen)}")
        # A pipe that nobody reads would stop the server when it is full.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield found[1]
    finally:
        process.kill()
        process.wait()


def moto() -> list[str]:
    return ["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]


def nanio(folder: Path) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:  # it refuses to choose a port itself
        port = str(free.getsockname()[1])
    return [
        "-m",
        "nanio",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--data-dir",
        str(folder),
    ]

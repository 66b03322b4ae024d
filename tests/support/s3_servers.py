"""S3 servers in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from slm_vllm.storage.settings import S3Settings
from support.servers import free_port, serving

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
def serving_s3(words: list[str], env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Starts a server that says where it listens; gives its URL."""
    with serving(words, r"(?i)running on (http://127\.0\.0\.1:\d+)", env) as found:
        yield found[1]


def moto() -> list[str]:
    return ["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]


def nanio(folder: Path) -> list[str]:
    port = str(free_port())  # it refuses to choose one itself
    return [
        *("-m", "nanio", "serve", "--host", "127.0.0.1", "--port", port),
        *("--data-dir", str(folder)),
    ]

"""One moto server for all tests; every test has a bucket of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.parts import TransferOptions
from support.faulty_proxy import FaultyProxy
from support.s3_servers import PART, moto, serving_s3, settings_for


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("CLEARML_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def one_loader() -> Iterator[None]:
    """Each boto3 session reads the description of S3 anew, which takes longer than most tests."""
    from botocore.loaders import Loader

    loader = Loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lambda *args: loader)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    smaller = {"S3_UPLOAD_PART_MIN_SIZE": str(PART), "MOTO_S3_DEFAULT_MAX_KEYS": "30"}
    with serving_s3(moto(), {**os.environ, **smaller}) as url:
        yield url


@pytest.fixture(scope="session")
def direct(server: str) -> Bucket:
    return Bucket.open(settings_for(server, "none"))


@pytest.fixture
def bucket_name(direct: Bucket) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    direct.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def bucket(direct: Bucket, bucket_name: str) -> Bucket:
    """Straight at the server."""
    return replace(direct, name=bucket_name)


@pytest.fixture(scope="session")
def long_lived_proxy(server: str) -> Iterator[tuple[FaultyProxy, Bucket]]:
    """With a client of its own, which takes boto3 a while to make."""
    proxy = FaultyProxy(server)
    yield proxy, Bucket.open(settings_for(proxy.url, "none"), attempts=1, read_timeout=1.0)
    proxy.close()


@pytest.fixture
def proxy(long_lived_proxy: tuple[FaultyProxy, Bucket]) -> Iterator[FaultyProxy]:
    proxy = long_lived_proxy[0]
    proxy.requests.clear()
    yield proxy
    proxy.faults.clear()


@pytest.fixture
def proxied(
    proxy: FaultyProxy, long_lived_proxy: tuple[FaultyProxy, Bucket], bucket_name: str
) -> Bucket:
    """The same bucket through the proxy, without retries of boto3's own."""
    return replace(long_lived_proxy[1], name=bucket_name)


@pytest.fixture
def options() -> TransferOptions:
    return TransferOptions(part_size=PART, workers=4, attempts=3, pause=0.001)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    def make(size: int, name: str = "file.bin", seed: int = 1) -> Path:
        import random

        path = tmp_path / name
        path.write_bytes(random.Random(seed).randbytes(size))
        return path

    return make

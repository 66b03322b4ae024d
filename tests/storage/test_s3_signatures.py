"""Against a server that checks signatures (moto does not)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.client import make_client
from slm_vllm.storage.diagnosis import check_connection, check_operations
from slm_vllm.storage.download import download
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.upload import upload
from support.s3_servers import ACCESS, PART, SECRET, nanio, serving_s3, settings_for

pytest.importorskip("nanio", reason="nanio is not installed (requirements/dev.txt)")


@pytest.fixture(scope="module")
def signing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    env = {**os.environ, "NANIO_ACCESS_KEY": ACCESS, "NANIO_SECRET_KEY": SECRET}
    with serving_s3(nanio(tmp_path_factory.mktemp("nanio")), env) as url:
        make_client(settings_for(url)).create_bucket(Bucket="data")
        yield url


@pytest.mark.parametrize("key", ["plain", "a b/é ü.bin", "100%+&=?#.bin"])
def test_there_and_back_signed(
    signing_server: str,
    make_file: Callable[..., Path],
    options: TransferOptions,
    tmp_path: Path,
    key: str,
) -> None:
    bucket = Bucket.open(settings_for(signing_server, "data"))
    source = make_file(PART + 5)
    assert upload(bucket, source, key, options).status == "uploaded"
    download(bucket, key, tmp_path / "back", options)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert key in {item.key for item in bucket.objects()}


def test_operations_signed(signing_server: str) -> None:
    bucket = Bucket.open(settings_for(signing_server, "data"))
    assert [f for f in check_connection(bucket) if f.status != "ok"] == []
    assert [f for f in check_operations(bucket) if f.status != "ok"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"secret_key": "wrong"}, "secret key does not belong"),
        ({"access_key": "nobody"}, "does not know the access key"),
    ],
)
def test_wrong_keys_are_blamed(signing_server: str, changes: dict[str, str], said: str) -> None:
    bucket = Bucket.open(settings_for(signing_server, "data", **changes))
    with pytest.raises(S3Error, match=said) as caught:
        bucket.find("k")
    assert caught.value.fault is Fault.CREDENTIALS
    blamed = [finding for finding in check_connection(bucket) if finding.status == "fail"]
    assert [finding.name for finding in blamed] == ["credentials"]
    assert "wrong" not in blamed[0].found

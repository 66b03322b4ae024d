"""Datasets by URL: cached, current, offline."""

from __future__ import annotations

import json
import logging
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from slm_vllm.datasets.catalog import folder_size
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.errors import ConfigError
from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.dataset_cache import cached_dataset
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.settings import S3Settings
from support.faulty_proxy import FaultyProxy
from support.s3_servers import ACCESS, SECRET


def put(bucket: Bucket, key: str, text: str) -> str:
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=text.encode())
    return bucket.url(key)


def dead(settings: S3Settings) -> S3Settings:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return replace(settings, endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}")


def test_a_current_copy_costs_one_question(
    proxied: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    url = put(proxied, "sets/qa.jsonl", "rows")
    first = cached_dataset(url, tmp_path, proxied.settings)
    assert first.name == "qa.jsonl" and first.read_text() == "rows"
    assert tmp_path / "datasets" in first.parents
    proxy.requests.clear()
    assert cached_dataset(url, tmp_path, proxied.settings) == first
    assert [line.split()[0] for line in proxy.requests] == [b"HEAD"]


def test_a_changed_object_is_noticed_and_the_old_copy_left_alone(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = put(bucket, "qa.jsonl", "one")
    old = cached_dataset(url, tmp_path, bucket.settings)
    assert "has changed" not in caplog.text
    put(bucket, "qa.jsonl", "two")
    said: list[str] = []
    new = cached_dataset(url, tmp_path, bucket.settings, notices=said)
    assert "has changed in the bucket" in caplog.text
    assert len(said) == 1 and said[0] in caplog.text
    assert (old.read_text(), new.read_text()) == ("one", "two")
    assert cached_dataset(url, tmp_path, bucket.settings) == new


def test_offline_the_copy_is_used_and_said_so(
    proxied: Bucket, proxy: FaultyProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = put(proxied, "qa.jsonl", "rows")
    copy = cached_dataset(url, tmp_path, proxied.settings)
    for kind in ("answer", "reset request"):
        proxy.faults.clear()
        caplog.clear()
        proxy.plan("HEAD", kind, times=99)
        said: list[str] = []
        again = cached_dataset(url, tmp_path, proxied.settings, notices=said, attempts=1)
        assert again == copy
        assert "without knowing whether it is current" in caplog.text
        assert len(said) == 1 and said[0] in caplog.text


def test_offline_without_a_copy_fails(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(S3Error, match="connection refused"):
        cached_dataset("s3://b-x/qa.jsonl", tmp_path, dead(bucket.settings), attempts=1)
    assert folder_size(tmp_path) == (0, 0)


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        ("404 Not Found", "NoSuchKey", Fault.KEY),
        ("403 Forbidden", "AccessDenied", Fault.PERMISSION),
    ],
)
def test_a_copy_does_not_hide_that_the_object_is_gone(
    proxied: Bucket, proxy: FaultyProxy, tmp_path: Path, status: str, code: str, fault: Fault
) -> None:
    url = put(proxied, "qa.jsonl", "rows")
    copy = cached_dataset(url, tmp_path, proxied.settings)
    proxied.client.delete_object(Bucket=proxied.name, Key="qa.jsonl")
    for method in ("GET", "HEAD"):
        proxy.plan(method, "answer", times=9, status=status, code=code, contains=b"qa.jsonl")
    with pytest.raises(S3Error, match="A copy of earlier is at") as caught:
        cached_dataset(url, tmp_path, proxied.settings, attempts=1)
    assert caught.value.fault is fault and str(copy) in str(caught.value)


def test_a_lost_copy_is_fetched_again(bucket: Bucket, tmp_path: Path) -> None:
    url = put(bucket, "qa.jsonl", "rows")
    copy = cached_dataset(url, tmp_path, bucket.settings)
    copy.unlink()
    assert cached_dataset(url, tmp_path, bucket.settings).read_text() == "rows"


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3:///key", "s3://bucket/dir/"])
def test_urls_that_name_no_object(url: str, tmp_path: Path, bucket: Bucket) -> None:
    with pytest.raises(ConfigError, match="write s3://bucket/key"):
        cached_dataset(url, tmp_path, bucket.settings)


def test_a_key_stays_inside_the_cache(bucket: Bucket, tmp_path: Path) -> None:
    url = put(bucket, "a/..", "x")
    with pytest.raises(S3Error, match="cannot be the name of a file"):
        cached_dataset(url, tmp_path, bucket.settings)


def test_open_dataset_takes_a_url(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [{"question": f"question {n}", "answer": "a", "question_id": str(n)} for n in range(5)]
    url = put(bucket, "qa_pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("CLEARML_S3_ENDPOINT", str(bucket.settings.endpoint))
    monkeypatch.setenv("CLEARML_S3_ACCESS_KEY", ACCESS)
    monkeypatch.setenv("CLEARML_S3_SECRET_KEY", SECRET)
    with caplog.at_level(logging.INFO):
        dataset = open_dataset(None, url, cache_dir=tmp_path / "cache")
    assert dataset.kind == "qa_pairs"
    assert sum(frame.height for frame in dataset.scan()) == 5
    assert f"downloading {url}" in caplog.text

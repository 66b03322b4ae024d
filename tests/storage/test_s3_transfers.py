from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slm_vllm.errors import StorageError
from slm_vllm.storage.bucket import Bucket, RemoteObject
from slm_vllm.storage.download import download
from slm_vllm.storage.faults import S3Error
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.progress import ByteProgress
from slm_vllm.storage.upload import upload
from support.faulty_proxy import FaultyProxy
from support.s3_servers import PART

MakeFile = Callable[..., Path]
SIZES = [0, 1, PART, PART + 1, 2 * PART + 77]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path, size: int
) -> None:
    source = make_file(size)
    sent = upload(bucket, source, "k", options)
    assert (sent.status, sent.moved) == ("uploaded", size)
    assert sent.verified == ("MD5 of parts" if size > PART else "MD5")
    head = bucket.client.head_object(Bucket=bucket.name, Key="k")
    assert head["Metadata"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    back = tmp_path / "sub" / "back.bin"
    got = download(bucket, "k", back, options)
    assert (got.status, got.moved) == ("downloaded", size)
    assert got.verified == ("SHA-256" if size > PART else "MD5")
    assert back.read_bytes() == source.read_bytes()
    assert listing(back.parent) == ["back.bin"]
    assert listing(source.parent) == ["file.bin", "sub"]


def test_what_is_the_same_is_not_moved_again(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    source = make_file(2 * PART)
    upload(proxied, source, "k", options)
    proxy.requests.clear()
    assert upload(proxied, source, "k", options).status == "same"
    assert download(proxied, "k", source, options).status == "same"
    assert {line.split()[0] for line in proxy.requests} == {b"HEAD"}


def test_objects_of_others_are_compared_by_their_parts(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path
) -> None:
    """As the plain boto3 of the earlier scripts left them: in parts, without a SHA-256."""
    from boto3.s3.transfer import TransferConfig

    source = make_file(3 * PART + 5)
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    bucket.client.upload_file(str(source), bucket.name, "theirs", Config=config)
    got = download(bucket, "theirs", tmp_path / "back", options)
    assert got.verified in ("MD5 of parts", "size")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert download(bucket, "theirs", tmp_path / "back", options).status == "same"


def test_a_different_object_is_kept_without_force(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions
) -> None:
    first, second = make_file(1000, "a", seed=1), make_file(1000, "b", seed=2)
    upload(bucket, first, "k", options)
    os.utime(second, (1e9, 1e9))
    with pytest.raises(StorageError, match="another file and newer .*--force"):
        upload(bucket, second, "k", options)
    assert bucket.get("k").etag == hashlib.md5(first.read_bytes()).hexdigest()
    assert upload(bucket, second, "k", replace(options, force=True)).status == "uploaded"
    assert bucket.get("k").etag == hashlib.md5(second.read_bytes()).hexdigest()


def test_an_object_written_meanwhile_is_kept(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = make_file(1000, "ours")
    monkeypatch.setattr(Bucket, "find", lambda self, key: None)
    bucket.client.put_object(Bucket=bucket.name, Key="k", Body=b"theirs")
    with pytest.raises(S3Error, match="somebody else wrote the object meanwhile"):
        upload(bucket, ours, "k", options)
    assert bucket.client.get_object(Bucket=bucket.name, Key="k")["Body"].read() == b"theirs"


def test_local_changes_are_kept_without_force(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path
) -> None:
    upload(bucket, make_file(1000), "k", options)
    back = tmp_path / "back"
    download(bucket, "k", back, options)
    back.write_bytes(b"my own work")
    os.utime(back, (4e9, 4e9))
    with pytest.raises(StorageError, match="may hold changes of yours.*--force"):
        download(bucket, "k", back, options)
    assert back.read_bytes() == b"my own work"
    assert download(bucket, "k", back, replace(options, force=True)).status == "downloaded"


def test_an_older_copy_is_replaced(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path
) -> None:
    back = tmp_path / "back"
    back.write_bytes(b"of last year")
    os.utime(back, (1e9, 1e9))
    source = make_file(1000)
    upload(bucket, source, "k", options)
    assert download(bucket, "k", back, options).status == "downloaded"
    assert back.read_bytes() == source.read_bytes()


def test_dry_run_moves_nothing(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path
) -> None:
    dry = replace(options, dry_run=True)
    source = make_file(1000)
    assert upload(bucket, source, "k", dry).status == "planned"
    assert bucket.find("k") is None
    upload(bucket, source, "k", options)
    assert upload(bucket, source, "k", dry).status == "same"
    assert download(bucket, "k", tmp_path / "no" / "back", dry).status == "planned"
    assert listing(tmp_path) == ["file.bin"]


def test_download_goes_on_with_the_parts_that_are_there(
    proxied: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    tmp_path: Path,
) -> None:
    source = make_file(4 * PART)
    upload(proxied, source, "k", options)
    back = tmp_path / "back"
    one = replace(options, workers=1)
    fault = proxy.plan("GET", "answer", skip=2, times=99, status="403 Forbidden")
    fault.code = "AccessDenied"
    with pytest.raises(S3Error, match="access denied"):
        download(proxied, "k", back, one)
    assert not back.exists()
    assert json.loads((tmp_path / ".back.part.json").read_text())["done"] == [0, 1]
    proxy.faults.clear()
    got = download(proxied, "k", back, one)
    assert got.moved == 2 * PART
    assert back.read_bytes() == source.read_bytes()
    assert listing(tmp_path) == ["back", "file.bin"]


def test_parts_of_another_version_are_not_used(
    proxied: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    upload(proxied, make_file(3 * PART, seed=1), "k", options)
    proxy.plan("GET", "answer", skip=1, times=99, status="403 Forbidden", code="AccessDenied")
    with pytest.raises(S3Error):
        download(proxied, "k", tmp_path / "back", replace(options, workers=1))
    proxy.faults.clear()
    new = make_file(3 * PART, seed=2)
    upload(proxied, new, "k", replace(options, force=True))
    assert download(proxied, "k", tmp_path / "back", options).moved == 3 * PART
    assert (tmp_path / "back").read_bytes() == new.read_bytes()
    assert "damaged" not in caplog.text


def test_an_object_that_changes_on_the_way_is_taken_anew(
    bucket: Bucket,
    make_file: MakeFile,
    options: TransferOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = b"n" * (2 * PART)
    bucket.client.put_object(Bucket=bucket.name, Key="k", Body=b"o" * (2 * PART))
    get, asked = Bucket.get, []

    def change_after_the_first_look(self: Bucket, key: str) -> RemoteObject:
        found = get(self, key)
        if not asked:
            self.client.put_object(Bucket=self.name, Key=key, Body=new)
        asked.append(key)
        return found

    monkeypatch.setattr(Bucket, "get", change_after_the_first_look)
    assert download(bucket, "k", tmp_path / "back", options).status == "downloaded"
    assert (tmp_path / "back").read_bytes() == new
    assert len(asked) == 2
    assert "somebody else wrote the object meanwhile" in caplog.text


def test_upload_goes_on_with_the_parts_that_are_there(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    source = make_file(4 * PART)
    one = replace(options, workers=1)
    proxy.plan("PUT", "answer", skip=2, times=99, status="403 Forbidden", code="AccessDenied")
    with pytest.raises(S3Error, match="access denied"):
        upload(proxied, source, "k", one)
    assert proxied.find("k") is None
    proxy.faults.clear()
    proxy.bytes_up = 0
    sent = upload(proxied, source, "k", one)
    assert sent.moved == 2 * PART
    assert 2 * PART <= proxy.bytes_up < 2 * PART + 10_000
    assert listing(source.parent) == ["file.bin"]
    pending = proxied.client.list_multipart_uploads(Bucket=proxied.name)
    assert "Uploads" not in pending


def test_parts_of_a_changed_file_are_not_used(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    one = replace(options, workers=1)
    proxy.plan("PUT", "answer", skip=2, times=99, status="403 Forbidden", code="AccessDenied")
    with pytest.raises(S3Error):
        upload(proxied, make_file(3 * PART, seed=1), "k", one)
    proxy.faults.clear()
    changed = make_file(3 * PART, seed=2)
    assert upload(proxied, changed, "k", one).moved == 3 * PART
    stored = proxied.client.get_object(Bucket=proxied.name, Key="k")["Body"].read()
    assert stored == changed.read_bytes()


def test_an_upload_that_the_server_forgot_begins_anew(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions
) -> None:
    source = make_file(2 * PART)
    (source.parent / ".file.bin.upload.json").write_text(
        json.dumps(
            {
                "endpoint": bucket.settings.where,
                "url": bucket.url("k"),
                "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
                "part_size": str(PART),
                "upload_id": "gone",
            }
        )
    )
    assert upload(bucket, source, "k", options).moved == 2 * PART


def test_two_downloads_to_one_place_wait_for_each_other(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path
) -> None:
    source = make_file(2 * PART)
    upload(bucket, source, "k", options)
    seen: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: seen.append(download(bucket, "k", tmp_path / "back", options).status)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == ["downloaded", "same", "same", "same"]
    assert listing(tmp_path) == ["back", "file.bin"]


def test_a_folder_is_not_overwritten(
    bucket: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path
) -> None:
    upload(bucket, make_file(10), "k", options)
    with pytest.raises(StorageError, match="is a folder"):
        download(bucket, "k", tmp_path, options)
    with pytest.raises(StorageError, match="is a folder"):
        upload(bucket, tmp_path, "k", options)
    with pytest.raises(StorageError, match="does not exist"):
        upload(bucket, tmp_path / "none", "k", options)


def test_a_disk_without_room_is_noticed_before(
    bucket: Bucket,
    make_file: MakeFile,
    options: TransferOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload(bucket, make_file(PART), "k", options)
    usage = type("Usage", (), {"free": PART - 1})
    monkeypatch.setattr("slm_vllm.storage.partial_files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="KB free. Nothing was downloaded"):
        download(bucket, "k", tmp_path / "back", options)
    assert listing(tmp_path) == ["file.bin"]


def test_part_size_stays_within_the_number_of_parts() -> None:
    options = TransferOptions()
    for size in (0, 1, 10**9, 160 << 30, 5 << 40):
        part = options.part_size_for(size)
        assert part >= options.part_size and -(-size // part) <= 1000


def test_progress_says_rate_and_time_left() -> None:
    now = 0.0
    progress = ByteProgress("f", 1_000_000_000, before=200_000_000, clock=lambda: now)
    progress.add(100_000_000)
    now = 4.0
    assert progress.line() == "f: 300.0 MB of 1.0 GB  30 %  25.0 MB/s  ETA 0:28"

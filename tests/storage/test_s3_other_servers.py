"""Servers that leave something of the protocol out, refuse it, or put it in another form."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from slm_vllm.errors import StorageError
from slm_vllm.storage.bucket import Bucket, RemoteObject
from slm_vllm.storage.checksums import likely_part_sizes
from slm_vllm.storage.diagnosis import check_connection, check_operations
from slm_vllm.storage.download import download
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.upload import upload
from support.faulty_proxy import FaultyProxy
from support.s3_servers import PART, settings_for

MakeFile = Callable[..., Path]
MIB = 1 << 20


def content_of(bucket: Bucket, key: str) -> bytes:
    body: bytes = bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
    return body


def put(bucket: Bucket, key: str, body: bytes, **given: Any) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=body, **given)


def without_conditions(proxy: FaultyProxy) -> None:
    refusal = {"status": "501 Not Implemented", "code": "NotImplemented"}
    proxy.plan("PUT", "answer", times=99, contains=b"If-None-Match", **refusal)


# A server without conditional writes.


def test_a_write_without_condition_follows_at_once(
    proxied: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without_conditions(proxy)
    source = make_file(1000)
    for number in range(3):
        assert upload(proxied, source, f"k{number}", options).verified == "MD5"
    assert proxy.count("PUT") == 4  # the condition is tried once for the bucket
    said = [r for r in caplog.records if "knows no conditional writes" in r.message]
    assert [record.levelno for record in said] == [logging.WARNING]


def test_without_conditions_the_key_is_looked_at_once_more(
    proxied: Bucket,
    bucket: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_conditions(proxy)
    written_after_the_first_look(monkeypatch, bucket, b"theirs")
    with pytest.raises(S3Error, match="somebody else wrote .* meanwhile"):
        upload(proxied, make_file(1000), "k", options)
    assert content_of(bucket, "k") == b"theirs"


@pytest.mark.parametrize("code", ["NotImplemented", "MethodNotAllowed"])
def test_an_operation_that_a_server_does_not_know_is_not_overload(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions, code: str
) -> None:
    status = {"NotImplemented": "501 No", "MethodNotAllowed": "405 No"}[code]
    proxy.plan("PUT", "answer", times=99, status=status, code=code)
    proxied.unconditional.add(proxied.name)
    with pytest.raises(S3Error, match="does not know this operation .PutObject") as caught:
        upload(proxied, make_file(10), "k", options)
    assert caught.value.fault is Fault.REQUEST
    assert proxy.count("PUT") == 1


# A region of another name.


@pytest.fixture
def garage(server: str, bucket_name: str) -> Any:
    """A server that takes signatures for its own region alone."""
    proxy = FaultyProxy(server)
    wrong: dict[str, Any] = {"times": 999, "lacks": b"/garage/s3/", "status": "400 Bad Request"}
    proxy.plan("HEAD", "answer", **wrong)
    for method in ("GET", "PUT", "POST"):
        named = {"code": "AuthorizationHeaderMalformed", "details": "<Region>garage</Region>"}
        proxy.plan(method, "answer", **wrong, **named)
    unnamed = (rb"(?i)x-amz-bucket-region: [^\r]*\r\n", b"")
    proxy.plan("HEAD", "rewrite", times=999, words=unnamed)
    yield Bucket.open(settings_for(proxy.url, bucket_name), attempts=2)
    proxy.close()


def test_the_region_is_learnt_from_the_server(
    garage: Bucket, make_file: MakeFile, options: TransferOptions, tmp_path: Path
) -> None:
    for name, size in (("empty", 0), ("small", 1000), ("parts", 2 * PART)):
        source = make_file(size, name)
        assert upload(garage, source, name, options).status == "uploaded"
        anew = Bucket.open(garage.settings)
        assert download(anew, name, tmp_path / "back" / name, options).status == "downloaded"
        assert (tmp_path / "back" / name).read_bytes() == source.read_bytes()
    missing = Bucket.open(garage.settings)
    assert missing.find("none") is None
    with pytest.raises(S3Error, match="There are:"):
        Bucket.open(garage.settings).get("none")


def test_the_connection_report_names_the_region(garage: Bucket) -> None:
    findings = {finding.name: finding for finding in check_connection(garage)}
    assert findings["region"].status == "fail"
    assert "the server is in garage" in findings["region"].found
    assert findings["region"].fix == "Set CLEARML_S3_REGION=garage"
    assert {f.status for name, f in findings.items() if name != "region"} == {"ok"}
    right = Bucket.open(replace(garage.settings, region="garage"))
    assert all(finding.status == "ok" for finding in check_connection(right))


def test_a_region_that_cannot_be_followed_is_named(proxied: Bucket, proxy: FaultyProxy) -> None:
    named = {"code": "PermanentRedirect", "details": "<Region>there</Region>"}
    proxy.plan("GET", "answer", times=99, status="301 Moved", **named)
    with pytest.raises(S3Error, match="CLEARML_S3_REGION .now us-east-1; the server says there"):
        list(proxied.objects())


# ETags that are something else than an MD5.

OWN_ETAG = (rb'(?i)etag: "[^"]*"', b'ETag: "' + b"5" * 32 + b'"')
"""Of the form of an MD5, which it is not."""

IF_MATCH = rb"(?i)if-match:.*"
"""The server behind the proxy does not know that ETag."""


def test_an_etag_of_another_kind_is_no_damage(
    proxied: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    tmp_path: Path,
) -> None:
    proxy.plan("HEAD", "rewrite", times=99, words=OWN_ETAG)
    proxy.plan("GET", "rewrite", times=99, forget=IF_MATCH)
    for size in (1000, 2 * PART):
        source = make_file(size)
        done = upload(proxied, source, f"k{size}", options)
        assert (done.status, done.verified) == ("uploaded", "reading it back")
        assert upload(proxied, source, f"k{size}", options).status == "same"
        assert download(proxied, f"k{size}", tmp_path / "back", options).verified == "SHA-256"
        assert download(proxied, f"k{size}", source, options).status == "same"
        (tmp_path / "back").unlink()


def test_the_md5_of_the_whole_is_taken_for_an_object_in_parts(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    source = make_file(2 * PART)
    md5 = hashlib.md5(source.read_bytes()).hexdigest().encode()
    proxy.plan("HEAD", "rewrite", times=99, words=(OWN_ETAG[0], b'ETag: "' + md5 + b'"'))
    assert upload(proxied, source, "k", options).verified == "MD5"
    assert proxy.count("GET") == 0


def test_other_bytes_are_damage_until_they_are_overwritten(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    source = make_file(1000)
    own = proxy.plan("HEAD", "rewrite", times=99, words=OWN_ETAG)
    proxy.plan("GET", "rewrite", times=99, forget=IF_MATCH)
    flip = proxy.plan("GET", "flip", after=5, forget=IF_MATCH)
    proxy.faults.insert(0, flip)
    with pytest.raises(S3Error, match="was stored damaged: other bytes came back"):
        upload(proxied, source, "k", options)
    assert flip.hits == 1
    with pytest.raises(StorageError, match="--force"):
        upload(proxied, source, "k", options)
    assert upload(proxied, source, "k", replace(options, force=True)).status == "uploaded"
    assert own.hits and upload(proxied, source, "k", options).status == "same"


def test_bytes_that_come_twice_are_taken_with_force(
    proxied: Bucket, bucket: Bucket, proxy: FaultyProxy, options: TransferOptions, tmp_path: Path
) -> None:
    put(bucket, "theirs", b"x" * 100)
    proxy.plan("HEAD", "rewrite", times=99, words=OWN_ETAG)
    proxy.plan("GET", "rewrite", times=99, forget=IF_MATCH)
    with pytest.raises(S3Error, match="twice with the same bytes.*--force"):
        download(proxied, "theirs", tmp_path / "back", options)
    assert list(tmp_path.glob("*back*")) == []
    got = download(proxied, "theirs", tmp_path / "back", replace(options, force=True))
    assert got.verified == "reading it twice"
    assert (tmp_path / "back").read_bytes() == b"x" * 100


# Objects that others wrote in parts.


def in_parts(bucket: Bucket, source: Path, part_size: int) -> None:
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(multipart_threshold=part_size, multipart_chunksize=part_size)
    bucket.client.upload_file(str(source), bucket.name, "theirs", Config=config)


@pytest.mark.parametrize("answer", ["405 Method Not Allowed", "200 without the part"])
def test_the_part_size_of_others_is_found(
    proxied: Bucket,
    bucket: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    tmp_path: Path,
    answer: str,
) -> None:
    source = make_file(11 * MIB)
    in_parts(bucket, source, 8 * MIB)
    if answer.startswith("405"):
        proxy.plan("HEAD", "answer", times=99, contains=b"partNumber", status=answer)
    else:
        given = {"contains": b"partNumber", "forget": rb"partNumber=1"}
        proxy.plan("HEAD", "rewrite", times=99, **given)
    assert upload(proxied, source, "theirs").verified == "MD5 of parts"
    assert download(proxied, "theirs", tmp_path / "back").verified == "MD5 of parts"


def test_parts_of_no_usual_size_may_be_the_same(
    proxied: Bucket,
    bucket: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    tmp_path: Path,
) -> None:
    odd = 5 * MIB + 1000
    source = make_file(2 * odd + 1)
    in_parts(bucket, source, odd)
    proxy.plan("HEAD", "answer", times=99, contains=b"partNumber", status="405 No")
    with pytest.raises(StorageError, match="may be the same file: it has the same size"):
        upload(proxied, source, "theirs", options)
    assert download(proxied, "theirs", tmp_path / "back", options).verified == "size"


@pytest.mark.parametrize(
    ("size", "n_parts", "among"),
    [
        (20 * MIB, 4, {5, 6}),
        (20 * MIB + 1, 4, {6}),
        (1000 * MIB, 2, {512}),
        (1000 * MIB, 125, {8}),
        (7 * MIB, 1, {7}),
    ],
)
def test_likely_part_sizes(size: int, n_parts: int, among: set[int]) -> None:
    found = likely_part_sizes(size, n_parts)
    assert {part / MIB for part in found} == among
    assert all(-(-size // part) == n_parts for part in found)


# Two uploads of one key at once.


def written_after_the_first_look(
    monkeypatch: pytest.MonkeyPatch, bucket: Bucket, body: bytes
) -> None:
    find, looks = Bucket.find, []

    def find_and_write(self: Bucket, key: str) -> RemoteObject | None:
        found = find(self, key)
        if not looks:
            put(bucket, key, body)
        looks.append(key)
        return found

    monkeypatch.setattr(Bucket, "find", find_and_write)


def test_parts_are_not_put_over_what_came_meanwhile(
    proxied: Bucket,
    bucket: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a server that ignores the condition where parts are put together."""
    proxy.plan("POST", "rewrite", times=99, forget=rb"(?i)if-none-match:.*")
    written_after_the_first_look(monkeypatch, bucket, b"theirs")
    with pytest.raises(S3Error, match="somebody else wrote .* meanwhile"):
        upload(proxied, make_file(2 * PART), "k", options)
    assert content_of(bucket, "k") == b"theirs"


# Fewer parts.


def test_a_server_that_allows_fewer_parts_is_told(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    proxy.plan(
        *("PUT", "answer"),
        times=99,
        contains=b"partNumber=3",
        status="400 Bad Request",
        code="InvalidArgument",
        message="Part number must be an integer between 1 and 2, inclusive",
    )
    with pytest.raises(S3Error, match="allows fewer parts of one upload than the usual 1,000"):
        upload(proxied, make_file(3 * PART), "k", options)


# What `s3 test --test-operations` may not do.


def denied(proxy: FaultyProxy, *methods: str) -> None:
    for method in methods:
        no = {"status": "403 Forbidden", "code": "AccessDenied"}
        proxy.plan(method, "answer", times=99, **no)


def test_a_reader_is_only_told_what_was_denied(
    proxied: Bucket, bucket: Bucket, proxy: FaultyProxy
) -> None:
    denied(proxy, "PUT", "POST", "DELETE")
    found = {f.name: f.status for f in check_operations(proxied)}
    nothing = {"get": "skipped", "range": "skipped", "list": "skipped", "delete": "skipped"}
    assert found == {"put": "fail", "multipart": "fail", **nothing}
    put(bucket, "there", b"some bytes")
    found = {f.name: f.status for f in check_operations(proxied)}
    assert found == {"put": "fail", "multipart": "fail", **nothing, "get": "ok", "range": "ok"}


def test_what_cannot_be_deleted_is_named(
    proxied: Bucket, bucket: Bucket, proxy: FaultyProxy
) -> None:
    denied(proxy, "DELETE")
    found = {f.name: f for f in check_operations(proxied)}
    left = list(bucket.objects())
    folder = left[0].key.rpartition("/")[0]
    assert {f.name for f in found.values() if f.status == "fail"} == {"delete"}
    assert "access denied" in found["delete"].found
    assert f"2 objects stay below {bucket.url(folder)}/ (5.2 MB)" in found["delete"].found
    assert len(left) == 2


def test_versions_do_not_stay(bucket: Bucket) -> None:
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    assert all(finding.status == "ok" for finding in check_operations(bucket))
    left = bucket.client.list_object_versions(Bucket=bucket.name)
    assert "Versions" not in left and "DeleteMarkers" not in left


def test_parts_that_did_not_become_an_object_do_not_stay(
    proxied: Bucket, bucket: Bucket, proxy: FaultyProxy
) -> None:
    proxy.plan(
        *("POST", "answer"),
        times=99,
        contains=b"uploadId=",
        status="403 Forbidden",
        code="AccessDenied",
    )
    found = {f.name: f.status for f in check_operations(proxied)}
    assert (found["multipart"], found["delete"]) == ("fail", "ok")
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)


# A file that was edited just now.


@pytest.mark.parametrize(("ahead", "rounded"), [(0, 0), (300, 0), (0, 1)])
def test_an_edit_just_after_the_push_is_kept(
    proxied: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    ahead: int,
    rounded: int,
) -> None:
    """Also where the server's clock is ahead of this one, or times are rounded up."""
    source = make_file(1000)
    upload(proxied, source, "k", options)
    pushed = proxied.get("k").last_modified.timestamp()
    times = {b"date": time.time() + ahead, b"last-modified": pushed + ahead + rounded}

    def told(line: re.Match[bytes]) -> bytes:
        return line[1] + b": " + formatdate(times[line[1].lower()], usegmt=True).encode()

    words = (rb"(?im)^(date|last-modified): [^\r]*", told)
    proxy.plan("HEAD", "rewrite", times=99, words=words)
    source.write_bytes(b"my own work")
    edited = pushed + 0.5
    os.utime(source, (edited, edited))
    with pytest.raises(StorageError, match="may hold changes of yours"):
        download(proxied, "k", source, options)
    assert source.read_bytes() == b"my own work"


@pytest.mark.parametrize("date", [b"", b"Date: yesterday\r\n"])
def test_a_server_need_not_tell_its_time(proxied: Bucket, proxy: FaultyProxy, date: bytes) -> None:
    put(proxied, "k", b"x")
    proxy.plan("HEAD", "rewrite", times=99, words=(rb"(?im)^date: [^\r]*\r\n", date))
    assert proxied.get("k").clock_ahead == 0


# Messages.


@pytest.mark.parametrize(
    ("code", "fault", "said", "not_said"),
    [
        ("AccessDenied", Fault.PERMISSION, r"access denied \(AccessDenied\)\.", "None"),
        ("AccessDenied", Fault.PERMISSION, r"Or the object is missing.*s3:ListBucket", "None"),
        ("UserSuspended", Fault.CREDENTIALS, "user of these keys is suspended", "refused"),
        ("QuotaExceeded", Fault.REQUEST, "a quota of the bucket or of its user", "no room"),
    ],
)
def test_errors_without_words(
    proxied: Bucket, proxy: FaultyProxy, code: str, fault: Fault, said: str, not_said: str
) -> None:
    for method in ("HEAD", "GET"):
        no = {"status": "403 Forbidden", "code": code, "message": None}
        proxy.plan(method, "answer", times=99, **no)
    with pytest.raises(S3Error, match=said) as caught:
        proxied.find("k")
    assert caught.value.fault is fault
    assert not_said not in str(caught.value)


def test_a_quota_by_another_code_is_named(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    full = {"code": "EntityTooLarge", "message": "Upload exceeds quota."}  # Swift's
    proxy.plan("PUT", "answer", times=99, status="400 Bad Request", **full)
    with pytest.raises(S3Error, match="a quota of the bucket or of its user is used up"):
        upload(proxied, make_file(10), "k", options)


def test_a_key_that_a_server_does_not_take(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    proxy.plan("PUT", "answer", times=99, status="404 Not Found", code="NoSuchKey")
    with pytest.raises(S3Error, match="does not take the key 'a//b'.*without //") as caught:
        upload(proxied, make_file(10), "a//b", options)
    assert caught.value.fault is Fault.KEY


def test_a_name_that_no_bucket_can_have(bucket: Bucket) -> None:
    with pytest.raises(S3Error, match="'Data_Sets!' cannot be the name of a bucket") as caught:
        replace(bucket, name="Data_Sets!").find("k")
    assert len(str(caught.value)) < 200


def test_http_at_a_port_with_tls_is_suspected(proxied: Bucket, proxy: FaultyProxy) -> None:
    proxy.plan("HEAD", "truncate at once", times=99)
    with pytest.raises(S3Error, match="or write https:// in CLEARML_S3_ENDPOINT"):
        proxied.check()


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
def test_a_web_server_that_knows_nothing(proxied: Bucket, proxy: FaultyProxy, status: str) -> None:
    for method in ("HEAD", "GET"):
        proxy.plan(method, "answer", times=99, status=status, page="<html><p>no<br></html>")
    (wrong,) = [f for f in check_connection(proxied) if f.status == "fail"]
    assert wrong.name == "endpoint" and "does not speak S3" in wrong.found


def test_going_on_with_nothing_is_not_told(
    proxied: Bucket,
    proxy: FaultyProxy,
    make_file: MakeFile,
    options: TransferOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    source = make_file(2 * PART)
    denied(proxy, "PUT")
    with pytest.raises(S3Error, match="access denied"):
        upload(proxied, source, "k", options)
    proxy.faults.clear()
    upload(proxied, source, "k", options)
    assert "are there already" not in caplog.text

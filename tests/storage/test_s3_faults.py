"""Each fault: a clear message that blames the right part, and nothing half-written."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slm_vllm.storage.bucket import Bucket, RemoteObject
from slm_vllm.storage.diagnosis import check_connection, check_operations
from slm_vllm.storage.download import download
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.upload import upload
from support.faulty_proxy import FaultyProxy
from support.s3_servers import PART, SECRET, settings_for

pytestmark = pytest.mark.slow

MakeFile = Callable[..., Path]


@pytest.fixture
def stored(bucket: Bucket, make_file: MakeFile, options: TransferOptions) -> bytes:
    """An object `k` of three parts, its ETag an MD5 of parts."""
    source = make_file(3 * PART - 11, "stored")
    upload(bucket, source, "k", options)
    content = source.read_bytes()
    source.unlink()
    return content


@pytest.mark.parametrize("kind", ["reset", "truncate", "stall"])
def test_a_broken_download_goes_on_by_itself(
    proxied: Bucket,
    proxy: FaultyProxy,
    stored: bytes,
    options: TransferOptions,
    tmp_path: Path,
    kind: str,
) -> None:
    fault = proxy.plan("GET", kind, after=PART // 2, times=2)
    got = download(proxied, "k", tmp_path / "back", options)
    assert fault.hits == 2
    assert (tmp_path / "back").read_bytes() == stored
    assert got.verified == "SHA-256"


@pytest.mark.parametrize(
    ("kind", "said"),
    [("reset", "connection"), ("truncate", "ended early"), ("stall", "stopped sending")],
)
def test_a_download_that_never_gets_further_fails(
    proxied: Bucket,
    proxy: FaultyProxy,
    stored: bytes,
    options: TransferOptions,
    tmp_path: Path,
    kind: str,
    said: str,
) -> None:
    proxy.plan("GET", kind, after=0, times=99)
    short = replace(options, attempts=2)
    with pytest.raises(S3Error, match=said) as caught:
        download(proxied, "k", tmp_path / "back", short)
    assert caught.value.fault is Fault.NETWORK
    assert caught.value.exit_code == 5
    assert not (tmp_path / "back").exists()
    proxy.faults.clear()
    download(proxied, "k", tmp_path / "back", short)
    assert (tmp_path / "back").read_bytes() == stored


def test_a_damaged_download_is_fetched_again(
    proxied: Bucket, proxy: FaultyProxy, stored: bytes, options: TransferOptions, tmp_path: Path
) -> None:
    fault = proxy.plan("GET", "flip", after=1000)
    download(proxied, "k", tmp_path / "back", options)
    assert fault.hits == 1
    assert (tmp_path / "back").read_bytes() == stored


def test_a_download_damaged_twice_is_refused(
    proxied: Bucket, proxy: FaultyProxy, stored: bytes, options: TransferOptions, tmp_path: Path
) -> None:
    (tmp_path / "back").write_bytes(b"old")
    proxy.plan("GET", "flip", after=1000, times=99)
    with pytest.raises(S3Error, match="arrived damaged: its SHA-256 is another") as caught:
        download(proxied, "k", tmp_path / "back", replace(options, force=True))
    assert caught.value.fault is Fault.CHECKSUM
    assert (tmp_path / "back").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


@pytest.mark.parametrize("kind", ["reset request", "answer"])
def test_a_broken_upload_goes_on_by_itself(
    proxied: Bucket,
    proxy: FaultyProxy,
    bucket: Bucket,
    make_file: MakeFile,
    options: TransferOptions,
    kind: str,
) -> None:
    source = make_file(3 * PART)
    fault = proxy.plan("PUT", kind, after=100, times=2)
    assert upload(proxied, source, "k", options).verified == "MD5 of parts"
    assert fault.hits == 2
    got = bucket.client.get_object(Bucket=bucket.name, Key="k")["Body"].read()
    assert got == source.read_bytes()


def test_a_lost_answer_to_the_last_request_does_not_matter(
    proxied: Bucket, proxy: FaultyProxy, make_file: MakeFile, options: TransferOptions
) -> None:
    """The server finished the upload; the answer to that never came."""
    source = make_file(2 * PART)
    proxy.plan("POST", "truncate", skip=1, after=0, times=1)
    assert upload(proxied, source, "k", options).status == "uploaded"


def test_slow_down_is_waited_out(
    proxied: Bucket, proxy: FaultyProxy, stored: bytes, options: TransferOptions, tmp_path: Path
) -> None:
    proxy.plan("GET", "answer", times=2)
    download(proxied, "k", tmp_path / "back", options)
    assert (tmp_path / "back").read_bytes() == stored


def test_boto3_itself_tries_again(server: str, proxy: FaultyProxy, bucket: Bucket) -> None:
    proxy.plan("HEAD", "answer", times=1)
    Bucket.open(settings_for(proxy.url, bucket.name), attempts=2).check()
    assert proxy.count("HEAD") == 2


@pytest.mark.parametrize(
    ("status", "code", "fault", "said"),
    [
        ("503 Slow Down", "SlowDown", Fault.SERVER, "overloaded or broken"),
        ("500 Oops", "InternalError", Fault.SERVER, "overloaded or broken"),
        ("403 Forbidden", "AccessDenied", Fault.PERMISSION, "may not do this in bucket"),
        ("403 Forbidden", "InvalidAccessKeyId", Fault.CREDENTIALS, "does not know the access key"),
        ("403 Forbidden", "SignatureDoesNotMatch", Fault.CREDENTIALS, "secret key does not belong"),
        ("400 Bad Request", "ExpiredToken", Fault.CREDENTIALS, "have expired"),
        ("403 Forbidden", "RequestTimeTooSkewed", Fault.CLOCK, "clock differs"),
        ("404 Not Found", "NoSuchBucket", Fault.BUCKET, "has no bucket"),
        ("404 Not Found", "NoSuchKey", Fault.KEY, "no object 'k'"),
        ("301 Moved", "PermanentRedirect", Fault.ENDPOINT, "another region or endpoint"),
        ("507 Full", "XMinioStorageFull", Fault.REQUEST, "no room left"),
        ("400 Bad Request", "Unheard", Fault.REQUEST, "refused the request .Unheard: as planned"),
    ],
)
def test_what_the_server_says_is_explained(
    proxied: Bucket,
    proxy: FaultyProxy,
    stored: bytes,
    options: TransferOptions,
    tmp_path: Path,
    status: str,
    code: str,
    fault: Fault,
    said: str,
) -> None:
    proxy.plan("GET", "answer", times=99, status=status, code=code)
    with pytest.raises(S3Error, match=said) as caught:
        download(proxied, "k", tmp_path / "back", replace(options, attempts=1))
    assert caught.value.fault is fault
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        ("403 Forbidden", "InvalidAccessKeyId", Fault.CREDENTIALS),
        ("400 Bad Request", "ExpiredToken", Fault.CREDENTIALS),
        ("403 Forbidden", "AccessDenied", Fault.PERMISSION),
        ("403 Forbidden", "RequestTimeTooSkewed", Fault.CLOCK),
    ],
)
def test_the_reason_behind_a_bare_head_answer_is_asked_for(
    proxied: Bucket, proxy: FaultyProxy, status: str, code: str, fault: Fault
) -> None:
    proxy.plan("HEAD", "answer", times=99, status=status, code=code)
    proxy.plan("GET", "answer", times=99, status=status, code=code)
    for ask in (lambda: proxied.find("k"), proxied.check):
        with pytest.raises(S3Error) as caught:
            ask()
        assert caught.value.fault is fault
    blamed = [f.name for f in check_connection(proxied) if f.status == "fail"]
    assert blamed == [fault.value]


def test_a_missing_bucket_and_a_missing_key_are_told_apart(bucket: Bucket) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="data/nq.jsonl", Body=b"x")
    with pytest.raises(S3Error, match="no object .* There are: data/nq.jsonl") as caught:
        bucket.get("data/nq.json")
    assert caught.value.fault is Fault.KEY
    none = replace(bucket, name="no-such-bucket")
    with pytest.raises(S3Error, match="has no bucket 'no-such-bucket'") as caught:
        none.get("k")
    assert caught.value.fault is Fault.BUCKET


def test_a_similar_key_is_found_behind_a_thousand_others(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [*(f"many/{number}" for number in range(1100)), "nq.jsonl"]

    def objects(self: Bucket, prefix: str = "") -> Iterator[RemoteObject]:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (RemoteObject(key, 1, "", now) for key in keys if key.startswith(prefix))

    monkeypatch.setattr(Bucket, "objects", objects)
    with pytest.raises(S3Error, match=r"There are: nq\.jsonl$"):
        bucket.get("nq.json")


def test_connection_refused(bucket_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    bucket = Bucket.open(settings_for(f"http://127.0.0.1:{port}", bucket_name), attempts=1)
    with pytest.raises(S3Error, match="connection refused.*CLEARML_S3_ENDPOINT") as caught:
        bucket.find("k")
    assert caught.value.fault is Fault.ENDPOINT
    findings = check_connection(bucket)
    assert [(f.name, f.status) for f in findings[:2]] == [("endpoint", "fail"), ("TLS", "skipped")]


def test_a_server_that_is_no_s3_server(bucket_name: str, proxy: FaultyProxy) -> None:
    bucket = Bucket.open(settings_for(proxy.url, bucket_name), attempts=1)
    proxy.plan("GET", "answer", status="200 OK", times=9, page="<html><p>Login<br></html>")
    with pytest.raises(S3Error, match="does not speak S3"):
        list(bucket.objects())


def test_no_credentials(server: str, bucket_name: str) -> None:
    settings = settings_for(server, bucket_name, access_key=None, secret_key=None)
    with pytest.raises(S3Error, match="no credentials were found. Set CLEARML_S3_ACCESS") as caught:
        Bucket.open(settings).find("k")
    assert caught.value.fault is Fault.CREDENTIALS


def test_secrets_in_the_servers_words_are_taken_out(
    proxied: Bucket, proxy: FaultyProxy, stored: bytes, options: TransferOptions, tmp_path: Path
) -> None:
    proxy.plan("GET", "answer", times=9, status="400 Bad", code=f"Bad{SECRET}")
    with pytest.raises(S3Error) as caught:
        download(proxied, "k", tmp_path / "back", options)
    assert SECRET not in str(caught.value) and "Bad***" in str(caught.value)
    assert SECRET not in repr(proxied.settings)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def tls_proxy(server: str, certificate: Path) -> Iterator[FaultyProxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = FaultyProxy(server, context)
    yield proxy
    proxy.close()


def test_certificates(tls_proxy: FaultyProxy, bucket_name: str, certificate: Path) -> None:
    def opened(verify: bool | str) -> Bucket:
        settings = settings_for(tls_proxy.url, bucket_name, verify_ssl=verify)
        return Bucket.open(settings, attempts=1)

    findings = {f.name: f for f in check_connection(opened(True))}
    assert (findings["endpoint"].status, findings["TLS"].status) == ("ok", "fail")
    assert "CLEARML_S3_VERIFY_SSL" in findings["TLS"].found
    for verify, said in ((str(certificate), "checked"), (False, "not checked")):
        findings = {f.name: f for f in check_connection(opened(verify))}
        assert all(finding.status == "ok" for finding in findings.values())
        assert said in findings["TLS"].found


def test_operations_leave_nothing_behind(
    bucket: Bucket, proxied: Bucket, proxy: FaultyProxy
) -> None:
    assert all(finding.status == "ok" for finding in check_operations(bucket))
    assert list(bucket.objects()) == []
    proxy.plan("GET", "flip", after=3, times=99, contains=b"scratch")
    findings = {f.name: f for f in check_operations(proxied)}
    assert (findings["range"].status, findings["multipart"].status) == ("fail", "ok")
    assert list(bucket.objects()) == []


def test_a_clock_that_is_wrong_is_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    now = time.time()
    monkeypatch.setattr("slm_vllm.storage.diagnosis.time.time", lambda: now + 400)
    clock = next(f for f in check_connection(bucket) if f.name == "clock")
    assert clock.status == "fail" and "ahead of the server" in clock.found

"""The checks of `s3 test`, one after the other."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slm_vllm.amounts import format_size
from slm_vllm.errors import StorageError
from slm_vllm.finding import Finding
from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.download import download
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.partial_files import read_state, upload_state
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.settings import DEFAULT_REGION
from slm_vllm.storage.upload import upload

MULTIPART_SIZE = 5 << 20
"""The smallest part that the protocol allows, but for the last."""

_PARTS_FILE = "parts"
_SMALL = 1 << 20
_SKEW_SECONDS = 60.0

# In the order in which a request meets them: what comes before the fault is in order.
_ORDER = ("endpoint", "TLS", "clock", "credentials", "bucket", "permission")
_BLAMED = {
    Fault.ENDPOINT: "endpoint",
    Fault.NETWORK: "endpoint",
    Fault.SERVER: "endpoint",
    Fault.TLS: "TLS",
    Fault.CREDENTIALS: "credentials",
    Fault.CLOCK: "clock",
    Fault.PERMISSION: "permission",
}


def check_connection(bucket: Bucket) -> list[Finding]:
    """Asks for the bucket and lists it, and says which part is at fault if that fails."""
    try:
        with _noting_region(bucket) as regions:
            headers = bucket.check()
            first = next(bucket.objects(), None)
    except S3Error as error:
        return _blame(bucket, error)
    regions.append(headers.get("x-amz-bucket-region"))
    return [
        Finding("endpoint", "ok", bucket.settings.where),
        _tls(bucket),
        _clock(headers.get("date")),
        Finding("credentials", "ok", _credentials(bucket)),
        Finding("bucket", "ok", f"{bucket.name}, {'holds objects' if first else 'empty'}"),
        _region(regions[0], bucket.settings.region),
        Finding("permission", "ok", "may list the bucket"),
    ]


def check_operations(bucket: Bucket) -> Iterator[Finding]:
    """Writes, reads, lists and deletes keys of its own, and says what it could not take away."""
    folder = f"slm-vllm-test/{uuid.uuid4().hex}/"
    key = folder + "scratch file \u00e9"
    content = uuid.uuid4().bytes * 64
    with TemporaryDirectory() as name:
        here = Path(name)
        try:
            put = _tried("put", lambda: _put(bucket, here, key, content))
            yield put
            if put.status == "ok":
                yield _tried("get", lambda: _get(bucket, here, key, content))
                yield _tried("range", lambda: _range(bucket, key, content))
                yield _tried("list", lambda: _list(bucket, key))
            else:
                yield from _reading_only(bucket, here)
            yield _tried("multipart", lambda: _multipart(bucket, here, key + " parts"))
            yield _cleaned(bucket, folder, here)
        finally:
            with suppress(StorageError):
                _remove_scratch(bucket, folder, here)


def _reading_only(bucket: Bucket, here: Path) -> Iterator[Finding]:
    """What can be tried where nothing was written."""
    some = next((o for o in islice(bucket.objects(), 1000) if 0 < o.size <= _SMALL), None)
    if some is None:
        yield from (Finding(what, "skipped", "nothing was written") for what in ("get", "range"))
    else:
        yield _tried("get", lambda: download(bucket, some.key, here / "get"))
        yield _tried("range", lambda: bucket.read_range(some.key, 0, 1))
    yield Finding("list", "skipped", "nothing was written")


def _cleaned(bucket: Bucket, folder: str, here: Path) -> Finding:
    removed = 0

    def remove() -> None:
        nonlocal removed
        removed = _remove_scratch(bucket, folder, here)

    done = _tried("delete", remove)
    if done.status == "ok" and not removed:
        return Finding("delete", "skipped", "nothing was written")
    return done


def _remove_scratch(bucket: Bucket, folder: str, here: Path) -> int:
    """Takes away what the test wrote: objects with their versions, and unfinished uploads.

    Returns:
        How many objects there were.

    Raises:
        StorageError: Something stays; the message names it.
    """
    _abort(bucket, here)
    removed, kept, reason = 0, [], None
    for item in bucket.objects(folder):
        try:
            _delete(bucket, item.key)
            removed += 1
        except S3Error as error:
            kept.append(item)
            reason = error
    if reason is not None:
        size = format_size(sum(item.size for item in kept))
        raise S3Error(
            reason.fault,
            f"{reason}. {len(kept)} objects stay below {bucket.url(folder)} ({size}): have them "
            "removed",
        )
    return removed


def _blame(bucket: Bucket, error: S3Error) -> list[Finding]:
    guilty = _BLAMED.get(error.fault, "bucket")
    at = _ORDER.index(guilty)
    shown = {"endpoint": bucket.settings.where, "credentials": _credentials(bucket)}
    return [
        Finding(what, "ok", shown.get(what, ""))
        if number < at
        else Finding(what, "fail", str(error))
        if number == at
        else Finding(what, "skipped")
        for number, what in enumerate(_ORDER)
    ]


def _credentials(bucket: Bucket) -> str:
    settings = bucket.settings
    masked = f"{settings.access_key[:4]}..." if settings.access_key else "none"
    return f"{masked} from {settings.credentials_from}"


def _tls(bucket: Bucket) -> Finding:
    endpoint, verify = bucket.settings.endpoint, bucket.settings.verify_ssl
    if endpoint is not None and endpoint.startswith("http://"):
        return Finding("TLS", "ok", "none: the endpoint is http://")
    if verify is False:
        return Finding("TLS", "ok", "certificate not checked (CLEARML_S3_VERIFY_SSL=false)")
    return Finding("TLS", "ok", "certificate checked")


def _clock(date: str | None) -> Finding:
    if date is None:
        return Finding("clock", "ok", "the server does not tell its time")
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew) > _SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        return Finding(
            "clock",
            "fail",
            f"this machine is {abs(skew):,.0f} s {way} the server; signatures stop being accepted "
            "at 900 s",
            "Set the clock, or have NTP set it",
        )
    return Finding("clock", "ok", f"{abs(skew):.0f} s apart")


@contextmanager
def _noting_region(bucket: Bucket) -> Iterator[list[str | None]]:
    """Gathers the regions that the server names in errors which boto3 follows without a word."""
    found: list[str | None] = []

    def note(response: Any, **_: Any) -> None:
        region = response and response[1].get("Error", {}).get("Region")
        if region:
            found.append(region)

    events = bucket.client.meta.events
    events.register("needs-retry.s3", note)
    try:
        yield found
    finally:
        events.unregister("needs-retry.s3", note)


def _region(found: str | None, configured: str) -> Finding:
    if found in (None, configured):
        return Finding("region", "ok", configured)
    text = f"the server is in {found}, CLEARML_S3_REGION is {configured}"
    if configured == DEFAULT_REGION:
        text += " (also where it is not set)"
    return Finding("region", "fail", text, f"Set CLEARML_S3_REGION={found}")


def _tried(what: str, operation: Callable[[], Any]) -> Finding:
    begin = time.monotonic()
    try:
        operation()
    except StorageError as error:
        return Finding(what, "fail", str(error))
    return Finding(what, "ok", f"{(time.monotonic() - begin) * 1000:,.0f} ms")


def _put(bucket: Bucket, folder: Path, key: str, content: bytes) -> None:
    source = folder / "put"
    source.write_bytes(content)
    upload(bucket, source, key)


def _get(bucket: Bucket, folder: Path, key: str, content: bytes) -> None:
    download(bucket, key, folder / "get")
    _same(bucket, key, (folder / "get").read_bytes(), content)


def _range(bucket: Bucket, key: str, content: bytes) -> None:
    _same(bucket, key, bucket.read_range(key, 10, 20), content[10:30])


def _list(bucket: Bucket, key: str) -> None:
    if key not in {item.key for item in bucket.objects(key.rpartition("/")[0] + "/")}:
        raise S3Error(Fault.SERVER, f"{bucket.url(key)} was written and is not in the listing")


def _multipart(bucket: Bucket, folder: Path, key: str) -> None:
    source = folder / _PARTS_FILE
    source.write_bytes(bytes(MULTIPART_SIZE + 1))
    upload(bucket, source, key, TransferOptions(part_size=MULTIPART_SIZE))


def _delete(bucket: Bucket, key: str) -> None:
    """Deletes an object; in a bucket with versions the version, so that no trace stays."""
    with bucket.explained("deleting", key):
        version = bucket.client.head_object(Bucket=bucket.name, Key=key).get("VersionId")
        given = {"VersionId": version} if version else {}
        bucket.client.delete_object(Bucket=bucket.name, Key=key, **given)


def _abort(bucket: Bucket, here: Path) -> None:
    """Takes away the parts of an upload that did not end."""
    state = read_state(upload_state(here / _PARTS_FILE))
    if "upload_id" not in state:
        return
    key = state["url"].removeprefix(bucket.url())
    with bucket.explained("removing the unfinished upload of", key):
        bucket.client.abort_multipart_upload(
            Bucket=bucket.name, Key=key, UploadId=state["upload_id"]
        )


def _same(bucket: Bucket, key: str, found: bytes, expected: bytes) -> None:
    if found != expected:
        raise S3Error(Fault.CHECKSUM, f"{bucket.url(key)} gave back other bytes than were written")

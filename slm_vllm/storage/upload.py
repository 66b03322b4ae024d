"""Uploads: small files whole, large ones in parts; interrupted ones are resumed.

boto3's managed upload removes its parts when it fails, so it cannot be resumed; here they
stay, and a note beside the file says to which upload they belong.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_vllm.durable import sha256_of
from slm_vllm.errors import StorageError
from slm_vllm.storage.bucket import SHA256_KEY, Bucket, RemoteObject
from slm_vllm.storage.checksums import compare, md5_of, parts_etag
from slm_vllm.storage.download import Transferred
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.partial_files import read_state, upload_state, write_state
from slm_vllm.storage.parts import PartRunner, Parts, TransferOptions
from slm_vllm.storage.progress import ByteProgress

log = logging.getLogger(__name__)

_BLOCK = 256 << 10


def upload(
    bucket: Bucket, source: Path, key: str, options: TransferOptions | None = None
) -> Transferred:
    """Brings a file to an object; readers see the old object until the new one is whole.

    Raises:
        S3Error: The bucket refuses it, or it arrived damaged.
        StorageError: The file cannot be read, or another object of that key is there and `force`
            is off.
    """
    options = options or TransferOptions()
    begin = time.monotonic()
    size = _size_of(source)
    remote = bucket.find(key)
    # Its hash goes into the metadata: the ETag of an object in parts says little to others.
    sha256 = sha256_of(source)
    if remote is not None:
        same, how = _compared(source, sha256, remote, bucket)
        if same and how != "size":
            return Transferred("same", bucket.url(key), source, size, verified=how)
        if not options.force:
            raise StorageError(_refusal(source, remote, bucket, may_be_same=same))
    if options.dry_run:
        return Transferred("planned", bucket.url(key), source, size)
    work = _Upload(bucket, source, key, size, sha256, options, may_replace=remote is not None)
    moved, etag = work.run()
    verified = _verify(bucket, source, key, sha256, etag)
    seconds = time.monotonic() - begin
    return Transferred("uploaded", bucket.url(key), source, size, moved, seconds, verified)


def _size_of(source: Path) -> int:
    try:
        if not source.is_file():
            what = "is a folder" if source.is_dir() else "does not exist"
            raise StorageError(f"{source} {what}. Give the path of a file to upload")
        with source.open("rb"):
            return source.stat().st_size
    except OSError as error:
        raise StorageError(f"{source} cannot be read: {error.strerror or error}") from error


def _compared(source: Path, sha256: str, remote: RemoteObject, bucket: Bucket) -> tuple[bool, str]:
    """As `compare`, for a file whose hash is known."""
    if remote.size != source.stat().st_size:
        return False, "size"
    if remote.sha256 is None:
        return compare(source, remote, bucket)
    state = read_state(upload_state(source))
    damaged = state.get("damaged") == remote.etag and state.get("url") == bucket.url(remote.key)
    return remote.sha256 == sha256 and not damaged, "SHA-256"


def _refusal(source: Path, remote: RemoteObject, bucket: Bucket, may_be_same: bool) -> str:
    if may_be_same:
        return (
            f"{bucket.url(remote.key)} may be the same file: it has the same size and no checksum "
            f"that can be compared with {source}. Nothing was uploaded. Overwrite it with --force, "
            "or choose another key"
        )
    newer = remote.last_modified.timestamp() > source.stat().st_mtime
    return (
        f"{bucket.url(remote.key)} is another file{' and newer' if newer else ''} "
        f"({remote.size:,} bytes of {remote.last_modified:%Y-%m-%d %H:%M}; {source} has "
        f"{source.stat().st_size:,}). Nothing was uploaded. Overwrite it with --force, or choose "
        "another key"
    )


def _verify(bucket: Bucket, source: Path, key: str, sha256: str, etag: str) -> str:
    """Looks at what the bucket now has; the server checked the MD5 of every part itself."""
    stored = bucket.get(key)
    if stored.size != source.stat().st_size or stored.sha256 not in (sha256, None):
        raise S3Error(
            Fault.CHANGED, f"{bucket.url(key)} is not what was uploaded: another wrote it meanwhile"
        )
    if stored.etag == etag:
        return "MD5 of parts" if "-" in etag else "MD5"
    if stored.encrypted:
        return "MD5 at the server"
    if stored.etag == md5_of(source, 0, stored.size).hex():
        return "MD5"
    # The ETags of this server are something of its own.
    if bucket.sha256_of(stored) == sha256:
        return "reading it back"
    with contextlib.suppress(OSError):
        write_state(upload_state(source), {"url": bucket.url(key), "damaged": stored.etag})
    raise S3Error(
        Fault.CHECKSUM,
        f"{bucket.url(key)} was stored damaged: other bytes came back than were sent. Upload it "
        "again with --force",
    )


class _Upload:
    """One file on its way."""

    def __init__(
        self,
        bucket: Bucket,
        source: Path,
        key: str,
        size: int,
        sha256: str,
        options: TransferOptions,
        may_replace: bool,
    ) -> None:
        self._bucket, self._source, self._key, self._size = bucket, source, key, size
        self._parts = Parts(size, options.part_size_for(size))
        self._metadata = {SHA256_KEY: sha256}
        self._may_replace = may_replace
        self._state = upload_state(source)
        self._about = {"endpoint": bucket.settings.where, "url": bucket.url(key)}
        self._about |= {"sha256": sha256, "part_size": str(self._parts.part_size)}
        self._options = options
        self._lock = threading.Lock()
        self._md5s: dict[int, bytes] = {}
        self._moved = 0

    def run(self) -> tuple[int, str]:
        """Gives the bytes that were sent, and the ETag the object has to have."""
        if len(self._parts) <= 1:
            return self._whole()
        upload_id, stored = self._taken_up()
        self._begin(sum(map(self._parts.length, stored)))
        numbers = range(len(self._parts))
        missing = [number for number in numbers if number not in stored]
        self._md5s.update(stored)
        self._runner.run(lambda number: self._send_part(upload_id, number), missing)
        md5s = [self._md5s[number] for number in numbers]
        self._complete(upload_id, md5s)
        self._state.unlink(missing_ok=True)
        return self._moved, parts_etag(md5s)

    def _begin(self, before: int) -> None:
        self._progress = ByteProgress(self._source.name, self._size, before, self._options.progress)
        self._runner = PartRunner(self._options, self._progress)

    def _whole(self) -> tuple[int, str]:
        self._begin(0)
        md5 = md5_of(self._source, 0, self._size)

        def put(**condition: str) -> None:
            with self._body(0, self._size) as body:
                self._bucket.client.put_object(
                    Bucket=self._bucket.name,
                    Key=self._key,
                    Body=body,
                    ContentMD5=base64.b64encode(md5).decode(),
                    Metadata=self._metadata,
                    **condition,
                )

        self._runner.run(lambda _: self._try(lambda: self._write(put)), [1])
        self._state.unlink(missing_ok=True)
        return self._size, md5.hex()

    def _write(self, write: Callable[..., Any]) -> None:
        """Between the look at the bucket and the end of the upload another may write the key."""
        if self._may_replace:
            write()
        else:
            self._bucket.write_new(self._key, write)

    def _taken_up(self) -> tuple[str, dict[int, bytes]]:
        """An upload begun earlier, with the parts that are there and right; else a new one."""
        state = read_state(self._state)
        upload_id = state.pop("upload_id", None)
        if upload_id and state == self._about:
            with contextlib.suppress(S3Error):
                stored = self._stored(upload_id)
                if stored:
                    log.info(
                        "%s: %d parts are there already", self._bucket.url(self._key), len(stored)
                    )
                return upload_id, stored
        with self._bucket.explained("writing", self._key):
            answer = self._bucket.client.create_multipart_upload(
                Bucket=self._bucket.name, Key=self._key, Metadata=self._metadata
            )
        # A folder that cannot be written to costs the way back, not the upload.
        with contextlib.suppress(OSError):
            write_state(self._state, {**self._about, "upload_id": answer["UploadId"]})
        return answer["UploadId"], {}

    def _stored(self, upload_id: str) -> dict[int, bytes]:
        stored = {}
        pages = self._bucket.client.get_paginator("list_parts")
        with self._bucket.explained("looking at the parts of", self._key):
            for page in pages.paginate(Bucket=self._bucket.name, Key=self._key, UploadId=upload_id):
                for part in page.get("Parts", ()):
                    number = part["PartNumber"] - 1
                    if part["Size"] == self._parts.length(number):
                        md5 = md5_of(self._source, self._parts.start(number), part["Size"])
                        if part["ETag"].strip('"') == md5.hex():
                            stored[number] = md5
        return stored

    def _send_part(self, upload_id: str, number: int) -> None:
        start, length = self._parts.start(number), self._parts.length(number)
        md5 = md5_of(self._source, start, length)

        def send() -> None:
            with self._body(start, length) as body:
                self._bucket.client.upload_part(
                    Bucket=self._bucket.name,
                    Key=self._key,
                    UploadId=upload_id,
                    PartNumber=number + 1,
                    Body=body,
                    ContentMD5=base64.b64encode(md5).decode(),
                )

        self._try(send)
        with self._lock:
            self._md5s[number] = md5
            self._moved += length

    def _try(self, send: Callable[[], None]) -> None:
        def attempt() -> bool:
            with self._bucket.explained("writing", self._key):
                send()
            return True

        self._runner.retrying(attempt)

    @contextlib.contextmanager
    def _body(self, start: int, length: int) -> Iterator[Any]:
        """A stretch of the file as a request body, never in memory as a whole."""
        from s3transfer.utils import ReadFileChunk

        def sent(bytes_transferred: int) -> None:
            self._progress.add(bytes_transferred)
            self._runner.check()

        class Blocks(ReadFileChunk):  # type: ignore[misc]
            """Gives more than urllib3's 16 KiB at a time, each of which costs a turn of the GIL."""

            def read(self, amount: int | None = None) -> bytes:
                data: bytes = super().read(amount and max(amount, _BLOCK))
                return data

        with Blocks.from_filename(str(self._source), start, length, callbacks=[sent]) as body:
            yield body

    def _complete(self, upload_id: str, md5s: list[bytes]) -> None:
        parts = [
            {"PartNumber": number, "ETag": f'"{md5.hex()}"'}
            for number, md5 in enumerate(md5s, start=1)
        ]

        def complete(**condition: str) -> None:
            self._bucket.client.complete_multipart_upload(
                Bucket=self._bucket.name,
                Key=self._key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                **condition,
            )

        if not self._may_replace:
            # Ceph, for one, ignores the condition here, and the upload may have taken hours.
            self._bucket.check_free(self._key)
        try:
            with self._bucket.explained("finishing", self._key):
                self._write(complete)
        except S3Error:
            # The answer to a first try may have been lost on its way.
            stored = self._bucket.find(self._key)
            if stored is None or stored.etag != parts_etag(md5s):
                raise

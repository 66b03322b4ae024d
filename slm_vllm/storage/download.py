"""Downloads: parts by range into a partial file, checked, then renamed.

boto3's managed download throws everything away when it fails, so it cannot be resumed; here
the partial file stays, with a note of the parts that are whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slm_vllm.durable import publish
from slm_vllm.errors import StorageError
from slm_vllm.storage.bucket import Bucket, RemoteObject
from slm_vllm.storage.checksums import checksum_of, same_file, verdict
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.partial_files import (
    check_room,
    part_file,
    part_state,
    read_state,
    write_state,
    writing,
)
from slm_vllm.storage.parts import PartRunner, Parts, TransferOptions
from slm_vllm.storage.progress import ByteProgress
from slm_vllm.storage.streaming_checksum import StreamingChecksum

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_NOTE_SECONDS = 0.5
_TIME_STEP = 1.0  # seconds, of the times that HTTP tells


@dataclass(frozen=True, slots=True)
class Transferred:
    """What became of one file.

    Attributes:
        status: "downloaded", "uploaded", "same" (nothing to do) or "planned" (`dry_run`).
        url: The object.
        path: The file.
        bytes: Its size.
        moved: Bytes sent over the wire now; less than `bytes` where an earlier attempt was
            taken up.
        seconds: Spent moving and checking.
        verified: By what the two are known to be the same.
    """

    status: str
    url: str
    path: Path
    bytes: int
    moved: int = 0
    seconds: float = 0.0
    verified: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives the figures as plain values."""
        return {**asdict(self), "path": str(self.path), "seconds": round(self.seconds, 3)}


def download(
    bucket: Bucket, key: str, target: Path, options: TransferOptions | None = None
) -> Transferred:
    """Brings an object to a file; the file is whole or not touched.

    An interrupted download is resumed where it stopped, if the object is still the same.

    Raises:
        S3Error: The object is not available, or arrived damaged twice.
        StorageError: The file cannot be written, or holds changes of its own and `force` is off.
    """
    options = options or TransferOptions()
    begin = time.monotonic()
    if target.is_dir():
        raise StorageError(f"{target} is a folder. Give the name of a file")
    remote = bucket.get(key)
    if options.dry_run:
        return _planned(bucket, remote, target, options)
    with writing(target):
        same = _check_target(bucket, remote, target, options)
        if same is not None:
            return Transferred("same", bucket.url(key), target, remote.size, verified=same)
        arrived = None
        for last in (False, True):
            attempt = _Download(bucket, remote, target, options, arrived)
            try:
                moved, verified = attempt.run()
                break
            except S3Error as error:
                if last or error.fault not in (Fault.CHECKSUM, Fault.CHANGED):
                    raise
                arrived = attempt.arrived
                log.warning("%s; downloading it again", error)
                remote = bucket.get(key)
    return Transferred(
        "downloaded",
        bucket.url(key),
        target,
        remote.size,
        moved,
        time.monotonic() - begin,
        verified,
    )


def _planned(
    bucket: Bucket, remote: RemoteObject, target: Path, options: TransferOptions
) -> Transferred:
    same = _check_target(bucket, remote, target, options)
    status = "same" if same else "planned"
    return Transferred(status, bucket.url(remote.key), target, remote.size, verified=same)


def _check_target(
    bucket: Bucket, remote: RemoteObject, target: Path, options: TransferOptions
) -> str | None:
    """Says by what the file is the object already; refuses one that was changed here."""
    if not target.exists():
        return None
    same = same_file(target, remote, bucket)
    # The time of a downloaded file is that of its object, so a later one means work done here.
    # Work done here looks older than it is where the server's clock is ahead, and where it rounds
    # times up to whole seconds, as Swift does.
    edited = target.stat().st_mtime + remote.clock_ahead + _TIME_STEP
    newer = edited > remote.last_modified.timestamp()
    if same is None and newer and not options.force:
        raise StorageError(
            f"{target} differs from {bucket.url(remote.key)} and is newer: it may hold changes "
            "of yours. Move it away, or overwrite it with --force"
        )
    return same


class _Download:
    """One attempt at an object of a known version.

    Attributes:
        arrived: The checksum of what came, where it was not the one expected.
    """

    def __init__(
        self,
        bucket: Bucket,
        remote: RemoteObject,
        target: Path,
        options: TransferOptions,
        arrived_before: str | None,
    ) -> None:
        self._bucket, self._remote, self._target = bucket, remote, target
        self._force, self._arrived_before = options.force, arrived_before
        self.arrived: str | None = None
        self._part, self._state = part_file(target), part_state(target)
        self._parts = Parts(remote.size, options.part_size_for(remote.size))
        self._version = {"url": bucket.url(remote.key), "etag": remote.etag, "size": remote.size}
        self._version |= {"part_size": self._parts.part_size}
        self._done = self._taken_up()
        before = sum(map(self._parts.length, self._done))
        self._progress = ByteProgress(target.name, remote.size, before, options.progress)
        self._runner = PartRunner(options, self._progress)
        self._lock = threading.Lock()
        self._noted_at = 0.0
        self._moved = 0
        self._checksum = checksum_of(remote, bucket)
        check_room(target, remote.size - before)

    def run(self) -> tuple[int, str]:
        """Gives the bytes that were moved, and by what the file was checked."""
        missing = [number for number in range(len(self._parts)) if number not in self._done]
        if self._done:
            log.info("%s: going on with what is there", self._target)
        self._file = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(self._file, self._remote.size)
            self._gather(missing)
        finally:
            os.close(self._file)
        return self._moved, self._finish()

    def _gather(self, missing: list[int]) -> None:
        """Fetches what is missing; the checksum has seen all of it in the end."""
        follower = None
        if self._checksum is not None:
            follower = StreamingChecksum(self._part, self._parts, self._checksum, self._done)

        def fetch(number: int) -> None:
            self._fetch(number)
            if follower is not None:
                follower.arrived(number)

        try:
            self._runner.run(fetch, missing)
        except BaseException:
            if follower is not None:
                follower.stop()
            raise
        finally:
            self._note()
        if follower is not None:
            follower.wait()

    def _taken_up(self) -> set[int]:
        state = read_state(self._state)
        done = state.pop("done", None)
        whole = self._part.is_file() and self._part.stat().st_size == self._remote.size
        return set(done) if state == self._version and whole and done else set()

    def _fetch(self, number: int) -> None:
        position = self._parts.start(number)
        end = position + self._parts.length(number)

        def attempt() -> bool:
            nonlocal position
            before = position
            try:
                for chunk in self._read(position, end):
                    os.pwrite(self._file, chunk, position)
                    position += len(chunk)
                    self._progress.add(len(chunk))
            except S3Error as error:
                # Getting further counts: a slow line may break often and still arrive.
                if position == before or not error.transient:
                    raise
                self._runner.pause(1)
            return position == end

        self._runner.retrying(attempt)
        with self._lock:
            self._done.add(number)
            self._moved += self._parts.length(number)
            if time.monotonic() - self._noted_at >= _NOTE_SECONDS:
                self._note()

    def _note(self) -> None:
        """Leaves word of the parts that are there, for a later attempt."""
        self._noted_at = time.monotonic()
        if self._done:
            write_state(self._state, {**self._version, "done": sorted(self._done)})

    def _read(self, start: int, end: int) -> Any:
        """The bytes of a range, as they come."""
        key, wanted = self._remote.key, end - start
        with self._bucket.explained("reading", key):
            answer = self._bucket.client.get_object(
                Bucket=self._bucket.name,
                Key=key,
                Range=f"bytes={start}-{end - 1}",
                IfMatch=f'"{self._remote.etag}"',
            )
            body = answer["Body"]
            with contextlib.closing(body):
                if answer["ContentLength"] != wanted:
                    raise S3Error(
                        Fault.NETWORK,
                        f"reading {self._bucket.url(key)} failed: {wanted:,} bytes were asked "
                        f"for, {answer['ContentLength']:,} were offered",
                    )
                while chunk := body.read(_CHUNK):
                    self._runner.check()
                    yield chunk

    def _finish(self) -> str:
        same, how = True, "size"
        if self._checksum is not None:
            same, how = verdict(self._checksum, self._part, self._remote)
        if not same and self._came_twice():
            same, how = True, "reading it twice"
        if not same:
            self._discard()
            raise S3Error(
                Fault.CHECKSUM,
                f"{self._bucket.url(self._remote.key)} arrived damaged: its {how} is another. "
                f"{self._target} was not touched",
            )
        if how == "size":
            log.warning(
                "%s has no checksum that can be compared; only its size was checked",
                self._bucket.url(self._remote.key),
            )
        changed = self._remote.last_modified.timestamp()
        os.utime(self._part, (changed, changed))
        publish(self._part, self._target)
        self._state.unlink(missing_ok=True)
        return how

    def _came_twice(self) -> bool:
        """Whether the same bytes came twice and are wanted, though the ETag is not their MD5.

        Raises:
            S3Error: They are not wanted.
        """
        assert self._checksum is not None
        self.arrived = self._checksum.value()
        if self.arrived != self._arrived_before or self._remote.sha256 is not None:
            return False
        if not self._force:
            self._discard()
            raise S3Error(
                Fault.CHECKSUM,
                f"{self._bucket.url(self._remote.key)} arrived twice with the same bytes, and its "
                "ETag is not their MD5: it is damaged in the bucket, or the ETags of this server "
                "are something else. Take it all the same with: slm-vllm s3 pull --force",
            )
        return True

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

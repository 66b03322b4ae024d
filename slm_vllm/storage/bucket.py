"""A bucket and the objects in it."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

from slm_vllm.errors import ConfigError
from slm_vllm.nearest import close_names
from slm_vllm.storage.client import make_client
from slm_vllm.storage.faults import MISSING, Fault, S3Error, error_code, explained
from slm_vllm.storage.settings import S3Settings

log = logging.getLogger(__name__)

SHA256_KEY = "sha256"
"""Name of the checksum in the metadata of objects this project wrote."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """What a bucket says about one object.

    Attributes:
        key: Its name in the bucket.
        size: Bytes.
        etag: Without quotes. An MD5 unless the object came in parts or is encrypted.
        last_modified: With time zone.
        sha256: From the metadata; None where the writer left none, and in listings.
        encrypted: Encrypted in a way that makes the ETag something else than an MD5.
        clock_ahead: Seconds by which the server's clock is ahead of this machine's at most; 0 where
            it is not.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime
    sha256: str | None = None
    encrypted: bool = False
    clock_ahead: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Gives the object as plain values."""
        return {
            "key": self.key,
            "bytes": self.size,
            "last_modified": self.last_modified.isoformat(),
            "etag": self.etag,
        }


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket through one client, which threads may share.

    Attributes:
        client: boto3's.
        settings: What the client was made from.
        name: The bucket.
        unconditional: Buckets of this client whose server knows no conditional writes.
    """

    client: Any
    settings: S3Settings
    name: str
    unconditional: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def open(cls, settings: S3Settings, name: str | None = None, **client: Any) -> Bucket:
        """Makes the client; nothing is asked yet.

        Raises:
            ConfigError: Neither argument nor settings name a bucket.
        """
        chosen = name or settings.bucket
        if not chosen:
            raise ConfigError("no bucket is named. Set CLEARML_S3_BUCKET or give --bucket")
        return cls(make_client(settings, **client), settings, chosen)

    def url(self, key: str = "") -> str:
        """The object as users write it."""
        return f"s3://{self.name}/{key}"

    def explained(self, doing: str, key: str | None = None) -> AbstractContextManager[None]:
        """See `faults.explained`."""
        return explained(self.settings, f"{doing} {self.url(key or '')}", self.name, key)

    def find(self, key: str) -> RemoteObject | None:
        """Asks for an object; None where the bucket has no such key.

        Raises:
            S3Error: The bucket is missing or does not let us look.
        """
        from botocore.exceptions import ClientError

        with self.explained("looking at", key):
            try:
                head = self.client.head_object(Bucket=self.name, Key=key)
            except ClientError as error:
                code: str | None = error_code(error)
                if code in ("403", "400"):
                    code = self._reason(key)
                if code in MISSING:
                    self.check()
                    return None
                if code is not None:
                    raise
                head = self.client.head_object(Bucket=self.name, Key=key)
        return _from_head(key, head)

    def _reason(self, key: str) -> str | None:
        """Asks for the reason behind an answer to HEAD, which has no body to tell it.

        The answer to GET also tells boto3 the region in which to sign from here on.

        Returns:
            The code for a missing object, or None where HEAD may succeed now.
        """
        from botocore.exceptions import ClientError

        try:
            answer = self.client.get_object(Bucket=self.name, Key=key, Range="bytes=0-0")
        except ClientError as error:
            code = error_code(error)
            if code in MISSING:
                return code
            if code in ("InvalidRange", "416"):
                return None  # the object is there, and empty
            raise
        answer["Body"].close()
        return None

    def write_new(self, key: str, write: Callable[..., Any]) -> Any:
        """Writes a key that nobody else may have written meanwhile.

        Args:
            key: Looked at once more where the server cannot do it itself.
            write: Takes the condition as keyword arguments; none where the server knows none.

        Raises:
            S3Error: The key is there.
        """
        from botocore.exceptions import ClientError

        if self.name not in self.unconditional:
            try:
                return write(IfNoneMatch="*")
            except ClientError as error:
                if error_code(error) not in ("NotImplemented", "501"):
                    raise
            self.unconditional.add(self.name)
            log.warning(
                "%s knows no conditional writes: two uploads of one key at the same moment are "
                "not told apart",
                self.settings.where,
            )
        self.check_free(key)
        return write()

    def check_free(self, key: str) -> None:
        """Raises `S3Error` where somebody has written a key that was not there before."""
        if self.find(key) is not None:
            raise S3Error(
                Fault.CHANGED,
                f"somebody else wrote {self.url(key)} meanwhile. Look at it, then try again",
            )

    def get(self, key: str) -> RemoteObject:
        """Like `find`.

        Raises:
            S3Error: Also where there is no such object; similar keys are named.
        """
        found = self.find(key)
        if found is None:
            raise S3Error(Fault.KEY, f"there is no object {self.url(key)}.{self._similar(key)}")
        return found

    def check(self) -> Mapping[str, str]:
        """Asks whether the bucket is there, and gives the headers of the answer.

        Raises:
            S3Error: It is missing, or nobody answers.
        """
        from botocore.exceptions import ClientError

        with self.explained("looking at"):
            try:
                answer = self.client.head_bucket(Bucket=self.name)
            except ClientError as error:
                # Without a body 404 may be that of any web server.
                if error_code(error) in ("400", "403", "404", "405"):
                    answer = self.client.list_objects_v2(Bucket=self.name, MaxKeys=1)
                else:
                    raise
        headers: Mapping[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        return headers

    def objects(self, prefix: str = "") -> Iterator[RemoteObject]:
        """Lists the objects below a prefix, page by page.

        Raises:
            S3Error: The bucket cannot be listed.
        """
        pages = self.client.get_paginator("list_objects_v2")
        with self.explained("listing", prefix or None):
            for page in pages.paginate(Bucket=self.name, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield RemoteObject(
                        item["Key"], item["Size"], item["ETag"].strip('"'), item["LastModified"]
                    )

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Reads a short stretch of an object.

        Raises:
            S3Error: It cannot be read.
        """
        with self.explained("reading", key):
            answer = self.client.get_object(
                Bucket=self.name, Key=key, Range=f"bytes={start}-{start + length - 1}"
            )
            data: bytes = answer["Body"].read()
        return data

    def sha256_of(self, remote: RemoteObject) -> str:
        """Reads a whole object and gives the SHA-256 of its bytes.

        Raises:
            S3Error: It cannot be read, or another wrote it meanwhile.
        """
        digest = hashlib.sha256()
        with self.explained("reading back", remote.key):
            answer = self.client.get_object(
                Bucket=self.name, Key=remote.key, IfMatch=f'"{remote.etag}"'
            )
            with closing(answer["Body"]) as body:
                while block := body.read(_BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    def _similar(self, key: str) -> str:
        folder, slash, name = key.rpartition("/")
        keys: list[str] = []
        try:
            # Those that begin alike come first: a folder may hold millions.
            for prefix in (folder + slash + name[:3], folder + slash):
                keys = [o.key for o in islice(self.objects(prefix), 1000)]
                if close := close_names(key, keys):
                    return f" There are: {', '.join(close)}"
        except S3Error:
            return ""
        return f" There are: {', '.join(keys[:3])}" if keys else " Nothing lies beside it"


def parse_url(url: str) -> tuple[str, str]:
    """Splits `s3://bucket/key`.

    Raises:
        ConfigError: It is something else.
    """
    bucket, slash, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not slash or not key or key.endswith("/"):
        raise ConfigError(f"'{url}' does not name an object: write s3://bucket/key")
    return bucket, key


def _from_head(key: str, head: Mapping[str, Any]) -> RemoteObject:
    return RemoteObject(
        key=key,
        size=int(head["ContentLength"]),
        etag=str(head.get("ETag", "")).strip('"'),
        last_modified=head.get("LastModified") or datetime.now(timezone.utc),
        clock_ahead=_clock_ahead(head),
        sha256=_sha256(head.get("Metadata", {}).get(SHA256_KEY)),
        encrypted="SSECustomerAlgorithm" in head
        or str(head.get("ServerSideEncryption", "")).startswith("aws:kms"),
    )


def _sha256(value: str | None) -> str | None:
    """What the metadata say, unless another tool means something else by that name."""
    return value if value is not None and re.fullmatch("[0-9a-f]{64}", value) else None


def _clock_ahead(head: Mapping[str, Any]) -> float:
    date = head.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        ahead = parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0
    # The date is cut to whole seconds.
    return ahead + 1 if ahead > 0 else 0.0

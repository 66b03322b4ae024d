"""Moves files to and from a bucket, all in one way, and tells of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.download import Transferred, download
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.upload import upload


@dataclass(frozen=True, slots=True)
class Transfers:
    """What the transfers of a command have in common.

    Attributes:
        bucket: The bucket.
        prefix: Before the keys of known files and of indexes.
        options: See `TransferOptions`.
        report: Told of each transfer.
    """

    bucket: Bucket
    prefix: str
    options: TransferOptions
    report: Callable[[Transferred], None]

    def download(self, key: str, target: Path) -> None:
        """See `storage.download.download`."""
        self.report(download(self.bucket, key, target, self.options))

    def upload(self, source: Path, key: str) -> None:
        """See `storage.upload.upload`."""
        self.report(upload(self.bucket, source, key, self.options))

"""Options and output that all commands with a bucket share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slm_vllm.amounts import format_size
from slm_vllm.cli.options import JSON, echo_json, together
from slm_vllm.cli.paths import UserPath

if TYPE_CHECKING:
    from slm_vllm.storage.bucket import Bucket
    from slm_vllm.storage.download import Transferred
    from slm_vllm.storage.transfers import Transfers

FORCE_OPTION = click.option("--force", is_flag=True, help="Overwrite newer or different files.")
DRY_RUN_OPTION = click.option("--dry-run", is_flag=True, help="Say what would be done, do nothing.")
PREFIX_OPTION = click.option(
    "--prefix", default="", help="Prefix of each key, such as 'datasets/'."
)


# Where the bucket is.
CONNECTION_OPTIONS = together(
    click.option("--endpoint", help="URL of the server, instead of CLEARML_S3_ENDPOINT."),
    click.option("--bucket", help="Instead of CLEARML_S3_BUCKET."),
    click.option("--region", help="Instead of CLEARML_S3_REGION."),
    click.option("--profile", help="A profile in ~/.aws; its keys replace those of .env."),
    click.option(
        "--env-file", type=UserPath(path_type=Path), help="Instead of .env in this folder."
    ),
    JSON,
)


class TransferReport:
    """Prints each transfer as it ends, or gathers them for one JSON object."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._transfers: list[dict[str, Any]] = []
        self._conversions: list[dict[str, Any]] = []

    def __call__(self, done: Transferred) -> None:
        """Adds a transfer."""
        self._transfers.append(done.to_json())
        if not self._as_json:
            click.echo(_transfer_line(done))

    def converted(self, done: Any) -> None:
        """Adds a conversion."""
        self._conversions.append(done.to_json())
        if not self._as_json:
            rejected = f", {done.rejected:,} rejected" if done.rejected else ""
            click.echo(f"{done.kind}: {done.rows:,} rows converted{rejected}")

    def finish(self) -> None:
        """Prints the JSON object."""
        if self._as_json:
            whole: dict[str, Any] = {"transfers": self._transfers}
            if self._conversions:
                whole["conversions"] = self._conversions
            echo_json(whole)


def open_bucket(given: dict[str, Any], **client: Any) -> Bucket:
    """The bucket that the options, the environment and .env name."""
    from slm_vllm.storage.bucket import Bucket
    from slm_vllm.storage.settings import load_s3_settings

    flags = {name: given[name] for name in ("endpoint", "bucket", "region", "profile")}
    settings = load_s3_settings(flags, env_file=given["env_file"])
    return Bucket.open(settings, **client)


@contextmanager
def reported_transfers(
    given: dict[str, Any], as_json: bool
) -> Iterator[tuple[Transfers, TransferReport]]:
    """Moves files and tells of them; log lines go to standard error from here on."""
    import logging

    from slm_vllm.storage.parts import TransferOptions
    from slm_vllm.storage.transfers import Transfers

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("slm_vllm").setLevel(logging.INFO)
    options = TransferOptions(force=given["force"], dry_run=given["dry_run"], progress=sys.stderr)
    report = TransferReport(as_json)
    transfers = Transfers(open_bucket(given), given["prefix"], options, report)
    try:
        yield transfers, report
    finally:
        report.finish()


def _transfer_line(done: Transferred) -> str:
    size = format_size(done.bytes)
    if done.status == "same":
        return f"same        {done.path}  {size}, nothing to do ({done.verified})"
    if done.status == "planned":
        return f"would move  {done.url} and {done.path}  {size}"
    rate = f"{format_size(done.moved / max(done.seconds, 1e-9))}/s"
    way = (
        f"{done.url} -> {done.path}"
        if done.status == "downloaded"
        else (f"{done.path} -> {done.url}")
    )
    went_on = "" if done.moved == done.bytes else f", {format_size(done.moved)} of it now"
    return f"{done.status:<11} {way}  {size}{went_on}, {rate}, checked by {done.verified}"

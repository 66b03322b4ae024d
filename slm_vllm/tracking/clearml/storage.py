"""Uploads to the place ClearML keeps files in: a bucket, a folder or its file server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from slm_vllm.storage.settings import S3Settings, load_s3_settings
from slm_vllm.tracking.base import TrackerError


def output_place(configured: str | None, files_server: str) -> str:
    """Where artifacts go: a URL without a slash at its end.

    From strong to weak: `tracking.output_uri`, `CLEARML_DEFAULT_OUTPUT_URI`, the bucket of
    `CLEARML_S3_BUCKET`, `sdk.development.default_output_uri` of clearml.conf, the file server.

    Args:
        configured: The run's own.
        files_server: ClearML's file server.
    """
    from clearml.config import config

    settings = load_s3_settings()
    bucket = None
    if os.environ.get("CLEARML_S3_BUCKET") or settings.bucket:
        bucket = s3_url(settings)
    named = configured or os.environ.get("CLEARML_DEFAULT_OUTPUT_URI") or bucket
    named = named or config.get("development.default_output_uri", None)
    place = (str(named) if isinstance(named, str) and named else files_server).rstrip("/")
    if place.startswith("s3://"):
        _use_credentials(settings, place)
    return place


def s3_url(settings: S3Settings) -> str:
    """The bucket as ClearML writes it: the port is part of it, whatever it is."""
    if settings.endpoint is None:
        return f"s3://{settings.bucket}"
    parts = urlsplit(settings.endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"s3://{parts.hostname}:{port}/{settings.bucket}"


def task_folder(place: str, project: str, name: str, task: str) -> str:
    """The folder of one task, as the SDK lays it out."""
    parts = [_slug(part) for part in project.split("/")]
    return "/".join([place, *parts, f"{_slug(name)[:90]}.{task}"])


def upload(path: Path, url: str) -> str:
    """Stores a file and checks that all of it is there.

    Returns:
        The URL under which ClearML's page finds it.

    Raises:
        TrackerError: It could not be stored.
    """
    from clearml import StorageManager

    size = path.stat().st_size
    try:
        stored = StorageManager.upload_file(str(path), url, retries=1)
        found = StorageManager.get_file_size_bytes(stored, silence_errors=True)
    except Exception as error:
        # Drivers raise what their libraries raise: botocore, requests, OSError, ValueError.
        reason = f"{type(error).__name__}: {error}"[:300]
        raise TrackerError(f"{path.name} cannot be stored at {url}: {reason}") from None
    if found != size:
        raise TrackerError(
            f"{path.name}: {url} holds {'nothing' if found is None else f'{found} bytes'} after "
            f"{size} bytes were stored there"
        )
    return str(stored)


def _use_credentials(settings: S3Settings, place: str) -> None:
    """Hands the keys of the S3 settings to the SDK, unless clearml.conf has some for the place."""
    if not settings.access_key:
        return
    from clearml.backend_config.bucket_config import S3BucketConfig
    from clearml.storage.helper import StorageHelper

    parts = urlsplit(place)
    with_host = parts.port is not None
    bucket = parts.path.split("/")[1] if with_host else parts.netloc
    # The SDK's own list; what its configuration gives is a copy.
    known = StorageHelper._s3_configurations
    if known.get_config_by_uri(place).key:
        return
    entry = {
        "bucket": bucket,
        "key": settings.access_key,
        "secret": settings.secret_key,
        "region": settings.region,
        "secure": not (settings.endpoint or "https").startswith("http:"),
        "verify": settings.verify_ssl,
    }
    if with_host:
        entry["host"] = parts.netloc
    if settings.session_token:
        entry["token"] = settings.session_token
    known.add_config(S3BucketConfig(**entry))


def _slug(text: str) -> str:
    return re.sub(r"[^\w.\- ]+", "_", text) or "_"


def check_storage(place: str) -> None:
    """Stores a small file, reads its size back and deletes it.

    Raises:
        TrackerError: One of these failed.
    """
    import tempfile

    from clearml.storage.helper import StorageHelper

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.txt"
        path.write_text("slm-vllm clearml check\n")
        stored = upload(path, f"{place}/slm-vllm-check/{path.name}")
    try:
        StorageHelper.get(stored).delete(stored)
    except Exception as error:
        raise TrackerError(
            f"{stored} was stored and cannot be deleted ({type(error).__name__}: {error})"
        ) from None

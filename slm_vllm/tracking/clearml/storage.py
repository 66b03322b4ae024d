"""Uploads to ClearML's storage: a bucket, a folder or its file server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from slm_vllm.environment import with_env_file
from slm_vllm.storage.settings import ARTIFACTS_BUCKET, S3Settings, load_s3_settings
from slm_vllm.tracking.base import TrackerError

_DEFAULT = "CLEARML_DEFAULT_OUTPUT_URI"
_DATASETS = "CLEARML_S3_BUCKET, the bucket of the datasets"


@dataclass(frozen=True, slots=True)
class Place:
    """Where artifacts go.

    Attributes:
        url: A bucket, a folder or a server, without a slash at its end.
        named_by: The setting that names it.
    """

    url: str
    named_by: str

    @property
    def among_datasets(self) -> bool:
        """Whether it is the bucket of the datasets because no other was named."""
        return self.named_by == _DATASETS

    @property
    def advice(self) -> str:
        """What to do where artifacts land among the datasets."""
        return (
            f"Name a bucket of their own, or this one again, with {ARTIFACTS_BUCKET} or "
            "tracking.output_uri"
        )


def named_place(configured: str | None) -> Place | None:
    """The place that the run or the environment (or `.env`) names; does not need the SDK.

    From strong to weak: `tracking.output_uri`, `CLEARML_DEFAULT_OUTPUT_URI`, the bucket of
    `CLEARML_S3_ARTIFACTS_BUCKET`, and that of `CLEARML_S3_BUCKET`, as earlier versions had it.

    Args:
        configured: The run's own.

    Raises:
        ConfigError: The settings of the bucket cannot be used.
    """
    settings = load_s3_settings()
    default = with_env_file().get(_DEFAULT)
    candidates = (
        (configured, "tracking.output_uri"),
        (default, _DEFAULT),
        (_s3_url(settings, settings.artifacts_bucket), ARTIFACTS_BUCKET),
        (_s3_url(settings, settings.bucket), _DATASETS),
    )
    return next((Place(url.rstrip("/"), by) for url, by in candidates if url), None)


def output_place(configured: str | None, files_server: str) -> Place:
    """Where artifacts go; the SDK is given the keys of a bucket.

    Behind what `named_place` finds come `sdk.development.default_output_uri` of clearml.conf and
    the files server.

    Args:
        configured: The run's own.
        files_server: ClearML's file server.
    """
    from clearml.config import config

    place = named_place(configured)
    if place is None:
        default = config.get("development.default_output_uri", None)
        if isinstance(default, str) and default:
            place = Place(default.rstrip("/"), "default_output_uri of clearml.conf")
        else:
            place = Place(files_server.rstrip("/"), "no setting, so the files server")
    if place.url.startswith("s3://"):
        _use_credentials(load_s3_settings(), place.url)
    return place


def _s3_url(settings: S3Settings, bucket: str | None) -> str | None:
    """A bucket as ClearML writes it: the port is part of it, whatever it is."""
    if bucket is None or settings.endpoint is None:
        return None if bucket is None else f"s3://{bucket}"
    parts = urlsplit(settings.endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"s3://{parts.hostname}:{port}/{bucket}"


def bucket_of(url: str) -> str:
    """The bucket in a URL as ClearML writes it."""
    parts = urlsplit(url)
    return parts.path.split("/")[1] if parts.port is not None else parts.netloc


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
    # The SDK's own list; what its configuration gives is a copy.
    known = StorageHelper._s3_configurations
    if known.get_config_by_uri(place).key:
        return
    entry = {
        "bucket": bucket_of(place),
        "key": settings.access_key,
        "secret": settings.secret_key,
        "region": settings.region,
        "secure": not (settings.endpoint or "https").startswith("http:"),
        "verify": settings.verify_ssl,
    }
    if parts.port is not None:
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

"""Datasets named by URL: a local copy, and which version of the object it is.

Layout under the cache folder::

    datasets/s3/<bucket>-<hash of endpoint and URL>/current.json      the version known last
    datasets/s3/<bucket>-<hash of endpoint and URL>/<version>/<name>  the file

Each version has a folder of its own, so that a copy is never exchanged under a run that reads it.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from slm_vllm.amounts import format_size
from slm_vllm.storage.bucket import Bucket, RemoteObject, parse_url
from slm_vllm.storage.download import download
from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.partial_files import read_state, write_state, writing
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.settings import S3Settings, load_s3_settings

log = logging.getLogger(__name__)


def cached_dataset(
    url: str,
    cache_dir: Path,
    settings: S3Settings | None = None,
    options: TransferOptions | None = None,
    notices: list[str] | None = None,
    **client: Any,
) -> Path:
    """Gives the local copy of an object, downloaded unless it is there and current.

    Args:
        url: `s3://bucket/key`.
        cache_dir: The `cache_dir` of runs.
        settings: Those of the environment when left out.
        options: For the download.
        notices: Also gets the warnings: the object has changed, or nobody answered.
        **client: See `make_client`.

    Raises:
        S3Error: The object is not available; where nobody answers, only if there is no copy.
        StorageError: The cache cannot be written.
        ConfigError: The URL or the settings cannot be used.
    """
    name, key = parse_url(url)
    settings = settings or load_s3_settings()
    bucket = Bucket.open(settings, name, **client)
    identity = hashlib.sha256(f"{settings.where} {url}".encode()).hexdigest()[:12]
    folder = Path(cache_dir) / "datasets" / "s3" / f"{name}-{identity}"
    record = folder / "current.json"
    known = read_state(record)
    copy = _copy(folder, key, known)
    try:
        remote = bucket.get(key)
    except S3Error as error:
        if copy is None:
            raise
        if not error.unreachable:
            raise S3Error(error.fault, f"{error}. A copy of earlier is at {copy}") from error
        _warn(
            f"{error}. Using the copy of {known.get('last_modified')} without knowing whether it "
            f"is current: {copy}",
            notices,
        )
        return copy
    version = _version(url, remote)
    if copy is not None and known == version:
        return copy
    if copy is not None:
        _warn(
            f"{url} has changed in the bucket (copy: {known.get('last_modified')}, "
            f"{format_size(known.get('size', 0))}; now: {version['last_modified']}, "
            f"{format_size(remote.size)}); downloading it again",
            notices,
        )
    target = folder / _version_name(version) / _file_name(key)
    log.info("downloading %s (%s) to %s", url, format_size(remote.size), target)
    done = download(bucket, key, target, options)
    with writing(record):
        # It may have changed again between the question and the download.
        write_state(record, version if done.bytes == remote.size else {})
    return target


def _warn(text: str, notices: list[str] | None) -> None:
    log.warning("%s", text)
    if notices is not None:
        notices.append(text)


def _version(url: str, remote: RemoteObject) -> dict[str, Any]:
    return {
        "url": url,
        "etag": remote.etag,
        "size": remote.size,
        "last_modified": remote.last_modified.isoformat(),
    }


def _copy(folder: Path, key: str, known: dict[str, Any]) -> Path | None:
    """The file of a version, if it is there whole."""
    if "etag" not in known:
        return None
    path = folder / _version_name(known) / _file_name(key)
    return path if path.is_file() and path.stat().st_size == known["size"] else None


def _version_name(version: dict[str, Any]) -> str:
    text = f"{version['etag']} {version['size']} {version['last_modified']}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _file_name(key: str) -> str:
    """The last part of a key, which says the layout (`.jsonl.gz`); never a way out of a folder."""
    name = key.rpartition("/")[2]
    if name in (".", "..") or "\0" in name or "\\" in name:
        raise S3Error(Fault.KEY, f"the key {key!r} cannot be the name of a file")
    return name

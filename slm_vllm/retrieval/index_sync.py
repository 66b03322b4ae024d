"""Stored retrieval indexes in a bucket: `<prefix>indexes/<kind>-<fingerprint>/<file>`.

The seal goes up last and is asked for first, so an index is either whole there or not there. The
fingerprint in its name covers documents, chunking and options: a pulled index can never be taken
for that of other settings.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from slm_vllm.errors import StorageError
from slm_vllm.retrieval.index_files import SEAL, DamagedIndexError, publish, read_seal
from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.download import Transferred, download
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.upload import upload

Report = Callable[[Transferred], None]


def push_index(
    bucket: Bucket,
    cache_dir: Path,
    name: str,
    prefix: str,
    options: TransferOptions,
    report: Report,
) -> None:
    """Uploads an index, the passages it searches first.

    Raises:
        StorageError: There is no such index here, or it is damaged.
    """
    folder = cache_dir / "indexes" / name
    if not folder.is_dir():
        raise StorageError(f"there is no index {name} in {cache_dir}. See: slm-vllm index info")
    try:
        seal = read_seal(folder)
    except DamagedIndexError as damage:
        raise StorageError(f"the index {folder} is damaged ({damage}). Build it again") from None
    if passages := _passages(seal):
        push_index(bucket, cache_dir, passages, prefix, options, report)
    there = bucket.find(_key(prefix, name, SEAL))
    if there is not None and not options.force:
        url = bucket.url(_key(prefix, name, ""))
        report(Transferred("same", url, folder, _size(seal), verified="fingerprint"))
        return
    # Without a seal, what lies there is the rest of a push that did not end.
    overwriting = replace(options, force=True)
    for file in [*seal["files"], SEAL]:
        report(upload(bucket, folder / file, _key(prefix, name, file), overwriting))


def pull_index(
    bucket: Bucket,
    cache_dir: Path,
    name: str,
    prefix: str,
    options: TransferOptions,
    report: Report,
) -> None:
    """Downloads an index, the passages it searches first, and checks it against its seal.

    Raises:
        StorageError: The bucket has no such index, or what it has is not one.
    """
    root = cache_dir / "indexes"
    _check_name(bucket, prefix, name)
    try:
        seal = read_seal(root / name)
    except DamagedIndexError:
        seal = {}
    if seal:
        if passages := _passages(seal):
            pull_index(bucket, cache_dir, passages, prefix, options, report)
        url = bucket.url(_key(prefix, name, ""))
        report(Transferred("same", url, root / name, _size(seal), verified="fingerprint"))
        return
    seal = _remote_seal(bucket, prefix, name)
    if passages := _passages(seal):
        pull_index(bucket, cache_dir, passages, prefix, options, report)
    temporary = root / f".pulling-{name}"
    for file in [*seal["files"], SEAL]:
        target = temporary / file
        if options.dry_run:
            target = root / name / file
        report(download(bucket, _key(prefix, name, file), target, replace(options, force=True)))
    if options.dry_run:
        return
    try:
        read_seal(temporary)
    except DamagedIndexError as damage:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"{bucket.url(_key(prefix, name, ''))} is damaged ({damage}). Push it again with "
            "--force"
        ) from None
    publish(temporary, root / name)


def _remote_seal(bucket: Bucket, prefix: str, name: str) -> dict[str, Any]:
    found = bucket.get(_key(prefix, name, SEAL))
    try:
        seal = json.loads(bucket.read_range(found.key, 0, max(found.size, 1)))
        files, fingerprint = dict(seal["files"]), seal["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"{bucket.url(found.key)} is not the seal of an index") from None
    outside = [file for file in files if not _is_inside(file)]
    if outside or not name.endswith(f"-{fingerprint}"):
        raise StorageError(
            f"{bucket.url(found.key)} cannot be trusted: it belongs to index {fingerprint} and "
            f"names {outside or list(files)}"
        )
    return dict(seal)


def _check_name(bucket: Bucket, prefix: str, name: str) -> None:
    if _is_inside(name) and "/" not in name and bucket.find(_key(prefix, name, SEAL)):
        return
    keys = [item.key for item in bucket.objects(f"{prefix}indexes/")]
    seals = (PurePosixPath(key) for key in keys if key.endswith(f"/{SEAL}"))
    names = sorted({path.parent.name for path in seals if path.parent.name[:9] != "passages-"})
    there = f"There are: {', '.join(names)}" if names else "It has none"
    raise StorageError(f"{bucket.url(prefix)} has no index {name}. {there}")


def _passages(seal: dict[str, Any]) -> str | None:
    return f"passages-{seal['passages']}" if isinstance(seal.get("passages"), str) else None


def _size(seal: dict[str, Any]) -> int:
    return sum(int(file["size"]) for file in seal["files"].values())


def _key(prefix: str, name: str, file: str) -> str:
    return f"{prefix}indexes/{name}/{file}"


def _is_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts

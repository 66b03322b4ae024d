"""Stored retrieval indexes in a bucket: `<prefix>indexes/<kind>-<fingerprint>/<file>`.

The seal goes up last and is asked for first, so an index is either whole there or not there. The
fingerprint in its name covers documents, chunking and options: a pulled index can never be taken
for that of other settings.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from slm_vllm.errors import StorageError
from slm_vllm.retrieval.index_files import SEAL, DamagedIndexError, publish, read_seal
from slm_vllm.storage.download import Transferred
from slm_vllm.storage.transfers import Transfers


def push_index(transfers: Transfers, cache_dir: Path, name: str) -> None:
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
    if passages := _passages_of(seal):
        push_index(transfers, cache_dir, passages)
    there = transfers.bucket.find(_key(transfers, name, SEAL))
    if there is not None and not transfers.options.force:
        _report_same(transfers, name, folder, seal)
        return
    # Without a seal, what lies there is the rest of a push that did not end.
    overwriting = _overwriting(transfers)
    for file in [*seal["files"], SEAL]:
        overwriting.upload(folder / file, _key(transfers, name, file))


def pull_index(transfers: Transfers, cache_dir: Path, name: str) -> None:
    """Downloads an index, the passages it searches first, and checks it against its seal.

    Raises:
        StorageError: The bucket has no such index, or what it has is not one.
    """
    root = cache_dir / "indexes"
    _check_name(transfers, name)
    try:
        seal, is_here = read_seal(root / name), True
    except DamagedIndexError:
        seal, is_here = _remote_seal(transfers, name), False
    if passages := _passages_of(seal):
        pull_index(transfers, cache_dir, passages)
    if is_here:
        _report_same(transfers, name, root / name, seal)
        return
    is_dry = transfers.options.dry_run
    temporary = root / f".pulling-{name}"
    overwriting = _overwriting(transfers)
    for file in [*seal["files"], SEAL]:
        target = (root / name if is_dry else temporary) / file
        overwriting.download(_key(transfers, name, file), target)
    if is_dry:
        return
    try:
        read_seal(temporary)
    except DamagedIndexError as damage:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"{_url(transfers, name)} is damaged ({damage}). Push it again with --force"
        ) from None
    publish(temporary, root / name)


def _overwriting(transfers: Transfers) -> Transfers:
    return replace(transfers, options=replace(transfers.options, force=True))


def _report_same(transfers: Transfers, name: str, folder: Path, seal: dict[str, Any]) -> None:
    size = sum(int(file["size"]) for file in seal["files"].values())
    url = _url(transfers, name)
    transfers.report(Transferred("same", url, folder, size, verified="fingerprint"))


def _remote_seal(transfers: Transfers, name: str) -> dict[str, Any]:
    bucket = transfers.bucket
    found = bucket.get(_key(transfers, name, SEAL))
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


def _check_name(transfers: Transfers, name: str) -> None:
    bucket, prefix = transfers.bucket, transfers.prefix
    if _is_inside(name) and "/" not in name and bucket.find(_key(transfers, name, SEAL)):
        return
    keys = [item.key for item in bucket.objects(f"{prefix}indexes/")]
    seals = (PurePosixPath(key) for key in keys if key.endswith(f"/{SEAL}"))
    names = sorted({path.parent.name for path in seals if path.parent.name[:9] != "passages-"})
    there = f"There are: {', '.join(names)}" if names else "It has none"
    raise StorageError(f"{bucket.url(prefix)} has no index {name}. {there}")


def _passages_of(seal: dict[str, Any]) -> str | None:
    return f"passages-{seal['passages']}" if isinstance(seal.get("passages"), str) else None


def _key(transfers: Transfers, name: str, file: str) -> str:
    return f"{transfers.prefix}indexes/{name}/{file}"


def _url(transfers: Transfers, name: str) -> str:
    return transfers.bucket.url(_key(transfers, name, ""))


def _is_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts

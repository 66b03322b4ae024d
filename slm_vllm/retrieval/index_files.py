"""Folders of index files that are either whole or not there.

A folder is filled under a temporary name, a seal with the size and a sampled checksum of each file
is written last, and the folder is brought to disk and gets its name by one rename. A reader checks
the seal, so a folder that was cut short or altered is never used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slm_vllm import durable
from slm_vllm.amounts import format_size
from slm_vllm.errors import StorageError, reason_of
from slm_vllm.retrieval.base import BuildMonitor, IndexCancelled

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
SEAL = "index.json"
LAYOUT = "layout"
"""Key of the seal: which files there are. Left out in seals of 0.2.0, where it was 1."""
_BLOCK = 4096
_N_BLOCKS = 17
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DamagedIndexError(Exception):
    """A stored folder cannot be trusted; says why. Never leaves this package."""


def read_seal(folder: Path) -> dict[str, Any]:
    """Checks a folder against its seal and returns what the seal says.

    The check reads at most 17 blocks of 4 KiB of each file, so it costs the same for any size.

    Raises:
        DamagedIndexError: Something is missing, has another size or other content, or was written
            by another version.
    """
    try:
        seal = json.loads((folder / SEAL).read_text("utf-8"))
        files = dict(seal["files"])
        version = seal["format_version"]
    except FileNotFoundError:
        raise DamagedIndexError(f"{SEAL} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedIndexError(f"{SEAL} cannot be read ({error})") from None
    if version != FORMAT_VERSION:
        raise DamagedIndexError(f"it has format {version}, this version reads {FORMAT_VERSION}")
    for name, expected in files.items():
        path = folder / name
        try:
            found = _sample(path)
        except OSError as error:
            raise DamagedIndexError(f"{name} cannot be read ({reason_of(error)})") from None
        if found != expected:
            raise DamagedIndexError(
                f"{name} has {found['size']} bytes or other content than when it was written "
                f"({expected.get('size')} bytes)"
            )
    return dict(seal)


def write_seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes the seal of a filled folder."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SEAL):
        files[path.relative_to(folder).as_posix()] = _sample(path)
    seal = {"format_version": FORMAT_VERSION, **facts, "files": files}
    (folder / SEAL).write_text(json.dumps(seal, indent=1, sort_keys=True), "utf-8")


def publish(temporary: Path, final: Path) -> None:
    """Gives a sealed folder its name.

    A whole one of the same layout is kept as it is; one that is damaged or of another is replaced.
    """
    layout = read_seal(temporary).get(LAYOUT, 1)
    durable.publish_folder(temporary, final, lambda folder: _is_sealed(folder, layout))


@contextlib.contextmanager
def building(folder: Path, what: str, *, resumable: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; its content is removed when filling fails.

    Args:
        folder: The temporary folder. What a killed build left in it is removed unless `resumable`.
        what: Named in errors.
        resumable: Keep what is there before, and when the build is interrupted.

    Raises:
        StorageError: The folder cannot be written; with a full disk, nothing is left behind.
    """
    try:
        if folder.exists() and not resumable:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except (KeyboardInterrupt, SystemExit, IndexCancelled):
        if not resumable:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # where there is something to resume
            folder.rmdir()
        raise
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) or _is_disk_full(error):
            raise _storage_error(error, folder, what) from error
        raise


@contextlib.contextmanager
def locked(path: Path, what: str, monitor: BuildMonitor) -> Iterator[None]:
    """Holds the lock of something to build.

    Raises:
        IndexCancelled: The monitor cancelled while another process held the lock.
        StorageError: The lock file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise _storage_error(error, path.parent, what) from error
    waited = False

    def waiting() -> None:
        nonlocal waited
        if not waited:
            log.info("Another process is building %s; waiting for it", what)
            waited = True
        monitor.report(f"waiting for another process to build {what}", 0)

    with durable.locked(path, waiting, every=0.1):
        yield


def _is_sealed(folder: Path, layout: int) -> bool:
    try:
        return bool(read_seal(folder).get(LAYOUT, 1) == layout)
    except DamagedIndexError:
        return False


def _is_disk_full(error: Exception) -> bool:
    # polars and faiss report a full disk in the text of errors of their own.
    return "No space left on device" in str(error) or "os error 28" in str(error)


def _storage_error(error: Exception, folder: Path, what: str) -> StorageError:
    full = _is_disk_full(error) or (isinstance(error, OSError) and error.errno in _FULL)
    if full:
        where = folder if folder.exists() else folder.parent
        while not where.exists():
            where = where.parent
        free = format_size(shutil.disk_usage(where).free)
        return StorageError(
            f"Writing {what} failed, there is no room for it under {folder.parent} "
            f"({free} free). Nothing was left behind. Free some space or choose another "
            "place with cache_dir=PATH"
        )
    return StorageError(
        f"Writing {what} under {folder.parent} failed: {error}. "
        "Check the permissions or choose another place with cache_dir=PATH"
    )


def _sample(path: Path) -> dict[str, Any]:
    """Size and checksum of blocks spread over the file, the first and the last included."""
    size = path.stat().st_size
    whole = size <= _BLOCK * _N_BLOCKS
    n, block = (1, size) if whole else (_N_BLOCKS, _BLOCK)
    digest = hashlib.blake2b(digest_size=16)
    for sample in durable.samples(path, n, block):
        digest.update(sample)
    return {"size": size, "sample": digest.hexdigest()}

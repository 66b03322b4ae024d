"""The files that a transfer keeps beside its target until it is finished."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slm_vllm.amounts import format_size
from slm_vllm.durable import locked, write_text
from slm_vllm.errors import StorageError

log = logging.getLogger(__name__)


def part_file(target: Path) -> Path:
    """Where a download gathers its bytes."""
    return target.with_name(f".{target.name}.part")


def part_state(target: Path) -> Path:
    """Which of those bytes are there."""
    return target.with_name(f".{target.name}.part.json")


def upload_state(source: Path) -> Path:
    """Which upload of a file was begun."""
    return source.with_name(f".{source.name}.upload.json")


def read_state(path: Path) -> dict[str, Any]:
    """What a state file says; nothing where there is none, or a torn one."""
    try:
        state = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replaces a state file in one step."""
    write_text(path, json.dumps(state))


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Holds a file for this process, and explains what the disk says.

    Another process that downloads to the same place is waited for.

    Raises:
        StorageError: The place cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(
            target.with_name(f".{target.name}.lock"),
            lambda: log.info("another process is downloading %s; waiting for it", target),
        ):
            yield
    except OSError as error:
        raise disk_error(error, target) from error


def disk_error(error: OSError, target: Path) -> StorageError:
    """What to say when a file cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            f"there is no room for {target}. Free some space, then run the same command: it goes "
            "on where it stopped"
        )
    return StorageError(
        f"{target} cannot be written: {error.strerror or error}. Check the owner of the folder "
        "or choose another place"
    )


def check_room(target: Path, needed: int) -> None:
    """Raises `StorageError` when a disk has no room for so many further bytes."""
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise StorageError(
            f"{target} needs {format_size(needed)} and {target.parent} has {format_size(free)} "
            "free. Nothing was downloaded"
        )

"""Atomic file writes, locks between processes, and file hashes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_BUFFER = 1 << 20


@contextlib.contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A temporary path whose file takes the place of `path` when the block ends well.

    Args:
        path: The file.
        temporary: Where it is written first. Left out: a name of this process's own; a writer that
            is alone gives a fixed one, so that what a killed process left is written over.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, temporary: Path | None = None) -> None:
    """Writes a text file in one step; half a surrogate pair, which UTF-8 lacks, becomes "?".

    A link stays one. What is no file (`/dev/stdout`, a pipe) cannot be replaced and is written to.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", errors="replace")
        return
    with replacing(Path(os.path.realpath(path)), temporary) as whole:
        whole.write_text(text, encoding="utf-8", errors="replace")


def publish(temporary: Path, path: Path) -> None:
    """Brings a file to disk and then gives it its name."""
    sync(temporary)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def publish_folder(made: Path, folder: Path, is_whole: Callable[[Path], bool]) -> None:
    """Brings all files of a folder to disk and gives it its name by one rename.

    Where a folder of that name is there already, a whole one is kept and a damaged one replaced.
    """
    for path in (made, *made.rglob("*")):
        if path.is_dir():
            _sync_folder(path)
        else:
            sync(path)
    try:
        os.replace(made, folder)
    except OSError:
        if not folder.exists():
            raise
        if is_whole(folder):
            shutil.rmtree(made)
            return
        # Renamed before it is removed, so that nobody finds it half deleted.
        damaged = folder.with_name(f".{folder.name}.damaged-{os.getpid()}")
        os.replace(folder, damaged)
        os.replace(made, folder)
        shutil.rmtree(damaged, ignore_errors=True)
    _sync_folder(folder.parent)


@contextlib.contextmanager
def new_folder(folder: Path, is_whole: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to fill beside `folder`, whose name it gets when the block ends well.

    Args:
        folder: See `publish_folder`.
        is_whole: Likewise.
    """
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield made
        os.chmod(made, 0o755)  # mkdtemp's 0700 would keep other users of a shared cache out
        publish_folder(made, folder, is_whole)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def sync(path: Path) -> None:
    """Brings what was written to a file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> IO[str] | None:
    """Takes a lock, which lasts until the file is closed or the process dies.

    Returns:
        The open lock file, None where another process has the lock.
    """
    file = path.open("a")
    if _try_lock(file):
        return file
    file.close()
    return None


@contextlib.contextmanager
def locked(
    path: Path, waiting: Callable[[], object], *, every: float | None = None
) -> Iterator[None]:
    """Holds a lock, once those before have given it back or died; its file goes with the last.

    Args:
        path: The lock file.
        waiting: Called before each wait; what it raises ends the waiting.
        every: Seconds after which to look again; None to sleep until the lock is free.
    """
    while True:
        with path.open("a") as file:
            if not _try_lock(file):
                waiting()
                if every is not None:
                    time.sleep(every)
                    continue
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it before has removed the file: then this lock is on nothing.
            if not _is_at(file, path):
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()
            return


def sha256_of(path: Path) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    digest = hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def blocks(path: Path, start: int = 0, length: int | None = None) -> Iterator[memoryview]:
    """A stretch of a file in blocks, to the end without `length`; each is good until the next."""
    buffer = memoryview(bytearray(_BUFFER))
    left = path.stat().st_size - start if length is None else length
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while left > 0:
            n = os.preadv(descriptor, [buffer[: min(left, _BUFFER)]], start)
            if n == 0:
                return
            yield buffer[:n]
            start, left = start + n, left - n
    finally:
        os.close(descriptor)


def samples(path: Path, n: int, size: int) -> Iterator[bytes]:
    """`n` blocks of `size` bytes spread evenly over a file, from its first byte to its last.

    For hashes of files that take too long to read whole. Blocks of a short file overlap.
    """
    last = max(path.stat().st_size - size, 0)
    with path.open("rb") as file:
        for i in range(n):
            file.seek(last * i // max(n - 1, 1))
            yield file.read(size)


def _sync_folder(folder: Path) -> None:
    # Some network file systems cannot; there a rename is as durable as it gets.
    with contextlib.suppress(OSError):
        sync(folder)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    # One question to the disk: between two, another process may remove the file.
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False

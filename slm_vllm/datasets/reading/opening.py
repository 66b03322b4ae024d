"""Opens data files: explains a bad path, and decompresses."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from slm_vllm.errors import DataError, MissingExtraError
from slm_vllm.nearest import close_names

PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz", ".zip")
"""What packed files are called by custom."""

_BUFFER = 1 << 20
_NO_MEMBERS = ("__MACOSX/", ".")  # what archivers of desktops add


class DamagedArchiveError(Exception):
    """Reading went through a place where a packed file is truncated or corrupt."""


def require_file(path: str | Path) -> Path:
    """Gives the path back if it is a file that can be read and holds something.

    Raises:
        DataError: It is missing (the nearest names of its folder are given), a folder, a pipe,
            empty, or not readable.
    """
    if "://" in str(path):
        raise DataError(
            f"{path}: of URLs only s3:// and hf:// are read. Download the file and give its path."
        )
    file = Path(path)
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{path} is a folder. Give one file; it holds: {_names(file)}")
        if not stat.S_ISREG(mode):
            kind = "a pipe" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else "a device"
            raise DataError(
                f"{path} is {kind}, and rows are read more than once. Write them to a file first, "
                "for example with: cat > questions.jsonl"
            )
        with file.open("rb") as opened:
            if not opened.read(1):
                raise DataError(f"{path} is empty. Fetch or convert it again.")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. {_nearest(file)}") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied. Check its owner.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return file


def open_bytes(path: str | Path) -> io.BufferedReader[Any]:
    """Opens a file for reading, unpacked; the first bytes decide, not the name.

    gzip, Zstandard, bzip2, xz, lzma, and zip with one file in it. Reading a damaged one raises
    `DamagedArchiveError` where the damage is reached.

    Raises:
        DataError: See `require_file`; also a zip archive that does not hold exactly one file.
        MissingExtraError: A Zstandard file, and no library that reads it.
    """
    file = require_file(path)
    raw = io.BufferedReader(io.FileIO(file), _BUFFER)
    magic = raw.read(6)
    raw.seek(0)
    for start, unpack in _PACKINGS.items():
        if magic.startswith(start):
            return io.BufferedReader(_Unpacked(raw, unpack(raw, path)), _BUFFER)
    return raw


def reading_failed(path: str | Path, error: DamagedArchiveError | OSError, after: str) -> DataError:
    """The error to raise where reading broke off, after a last good place such as `line 12`."""
    if isinstance(error, DamagedArchiveError):
        return DataError(
            f"{path}: the archive is truncated or corrupt after {after} ({error}). "
            "Fetch the file again and compare its size or checksum."
        )
    return DataError(f"{path}: reading failed after {after}: {error}")


def read_head(path: str | Path, n_bytes: int) -> bytes:
    """Gives the first bytes of a file, unpacked; fewer where the archive is damaged after them."""
    head = b""
    with open_bytes(path) as file:
        try:
            while len(head) < n_bytes and (more := file.read1(n_bytes - len(head))):
                head += more
        except DamagedArchiveError as error:
            if not head:
                raise reading_failed(path, error, "0 bytes") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error
    return head


class _Unpacked(io.RawIOBase):
    """Bytes of a packed file; whatever the library behind it raises says that it is damaged."""

    def __init__(self, raw: BinaryIO, unpacked: BinaryIO) -> None:
        self._raw = raw
        self._unpacked: Any = unpacked

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            n: int = self._unpacked.readinto(buffer)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the archive
            raise DamagedArchiveError(str(error) or type(error).__name__) from error
        return n

    def close(self) -> None:
        self._raw.close()
        super().close()


def _zstd(raw: BinaryIO, path: str | Path) -> BinaryIO:
    try:
        if sys.version_info >= (3, 14):
            import compression.zstd as zstd
        else:
            import backports.zstd as zstd
    except ImportError:
        raise MissingExtraError("backports.zstd", "zstd", f"Reading {path}") from None
    return cast(BinaryIO, zstd.ZstdFile(raw))


def _only_member(raw: BinaryIO, path: str | Path) -> BinaryIO:
    try:
        archive = zipfile.ZipFile(raw)
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not member.filename.startswith(_NO_MEMBERS)
        ]
        names = [member.filename for member in members]
        if "[Content_Types].xml" in names:
            raise DataError(f"{path} is an Excel workbook or another Office file. Save it as CSV.")
        if len(members) != 1:
            raise DataError(
                f"{path} is a zip archive with {len(members)} files ({', '.join(names[:5])}). "
                f"Unpack it (unzip '{path}') and give one of them."
            )
        if members[0].flag_bits & 1:
            raise DataError(f"{path} is an encrypted zip archive. Unpack it (unzip '{path}').")
        return cast(BinaryIO, archive.open(members[0]))
    except DataError:
        raise
    except Exception as error:  # zipfile has no end of them for damaged archives
        raise DataError(
            f"{path}: the zip archive is truncated, damaged, or of a kind that Python does not "
            f"read ({error}). Fetch it again, or unpack it."
        ) from error


_PACKINGS: dict[bytes, Callable[[BinaryIO, str | Path], BinaryIO]] = {
    b"\x1f\x8b": lambda raw, _: cast(BinaryIO, gzip.GzipFile(fileobj=raw)),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": lambda raw, _: cast(BinaryIO, bz2.BZ2File(raw)),
    b"\xfd7zXZ\x00": lambda raw, _: cast(BinaryIO, lzma.LZMAFile(raw)),  # noqa: SIM115
    b"]\x00\x00": lambda raw, _: cast(BinaryIO, lzma.LZMAFile(raw)),  # noqa: SIM115
    b"PK\x03\x04": _only_member,
}


def _names(folder: Path, limit: int = 5) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"


def _nearest(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return (
            f"Nor does its folder {folder.absolute()}. Give another path, or fetch the file from "
            f"your bucket: slm-vllm s3 pull --key KEY --to {file} --bucket BUCKET"
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    close = close_names(file.name, names)
    if close:
        return f"The nearest names in {folder}: {', '.join(close)}"
    return f"{folder.absolute()} holds: {_names(folder)}"

"""Opening data files: what is wrong with a path, compression, text encoding."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from slm_vllm.errors import DataError, MissingExtraError
from slm_vllm.nearest import close_names

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"
UTF8_BOM = b"\xef\xbb\xbf"

DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a truncated or corrupt archive raises."""

_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def require_file(path: str | Path) -> Path:
    """Gives the path back if it is a file that can be read and holds something.

    Raises:
        DataError: It is missing (the nearest names of its folder are given), a folder, empty, or
            not readable.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise DataError(f"{path} is a folder. Give one file; it holds: {_names(file)}")
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


def open_bytes(path: str | Path) -> BinaryIO:
    """Opens a plain, gzip or Zstandard file for reading; the first bytes decide, not the name.

    Raises:
        DataError: See `require_file`.
        MissingExtraError: A Zstandard file, and no library that reads it.
    """
    file = require_file(path)
    raw = file.open("rb", buffering=1 << 20)
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(GZIP_MAGIC):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if magic == ZSTD_MAGIC:
        return cast(BinaryIO, io.BufferedReader(_ZstdReader(raw, str(path)), 1 << 20))
    return raw


def read_head(path: str | Path, n_bytes: int) -> bytes:
    """Gives the first bytes of a file, decompressed."""
    with open_bytes(path) as file:
        try:
            return file.read(n_bytes)
        except DAMAGE as error:
            raise DataError(f"{path}: the archive is damaged at its beginning ({error})") from error


def check_encoding(path: str | Path, head: bytes) -> None:
    """Raises `DataError` when the first bytes of a text file are UTF-16 or UTF-32."""
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None)
    if encoding is None and head.count(0) * 5 > len(head):
        encoding = "UTF-16 (no byte order mark)"
    if encoding is not None:
        source = encoding.split(" ")[0]
        raise DataError(
            f"{path} is {encoding}, not UTF-8. Convert it with: "
            f"iconv -f {source} -t UTF-8 '{path}' > converted"
        )


class _ZstdReader(io.RawIOBase):
    """Decompresses frames one after another, and notices when the last one is cut off."""

    def __init__(self, raw: BinaryIO, path: str) -> None:
        self._raw = raw
        self._new_frame, self._errors = _zstd_decompressor(path)
        self._frame: Any = None
        self._ready = b""
        self._input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._input:
                self._input = self._raw.read(1 << 16)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("Zstandard data ends before its end marker")
                return 0
            self._decompress()
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n

    def _decompress(self) -> None:
        if self._frame is None:
            self._frame = self._new_frame()
        try:
            self._ready = self._frame.decompress(self._input)
        except self._errors as error:
            raise EOFError(f"Zstandard data is corrupt: {error}") from error
        self._input = b""
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = None

    def close(self) -> None:
        self._raw.close()
        super().close()


def _zstd_decompressor(path: str) -> tuple[Any, Any]:
    """Gives what makes a decompressor for one frame, and the error it raises."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdDecompressor, zstd.ZstdError
    try:
        import zstandard  # type: ignore[import-not-found]
    except ImportError:
        raise MissingExtraError("zstandard", "zstd", f"Reading {path}") from None
    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError


def _names(folder: Path, limit: int = 5) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"


def _nearest(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"Nor does its folder {folder}. Pull the data, or give another path."
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    close = close_names(file.name, names)
    if close:
        return f"The nearest names in {folder}: {', '.join(close)}"
    return f"{folder} holds: {_names(folder)}"

"""Recognises files that hold no rows, and says what to do with them."""

from __future__ import annotations

from slm_vllm.errors import DataError

UTF8_BOM = b"\xef\xbb\xbf"

_UNPACK = "Unpack it, and give the file that was in it."
_EXPORT = "Export its rows as CSV, JSON Lines or Parquet."
_FETCH = "Fetch the file itself again."

_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file it stands for",
        "Fetch that with `git lfs pull` in its repository, or download it from its page.",
    ),
    (b"/annex/objects/", "a git-annex pointer", "Fetch the file with `git annex get`."),
    (b"\x1f\x8b", "gzip within another archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard within another archive", _UNPACK),
    (b"BZh9", "bzip2 within another archive", _UNPACK),
    (b"\xfd7zXZ\x00", "xz within another archive", _UNPACK),
    (b"PK\x03\x04", "zip within another archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _FETCH),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "LZ4 data", _UNPACK),
    (b"LZIP", "lzip data", _UNPACK),
    (b"\x1f\x9d", "data of `compress`", _UNPACK),
    (b"FEA1", "a Feather file of version 1", "Write it again with a newer pandas or pyarrow."),
    (b"ORC", "an ORC file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file", "Save it as CSV."),
    (b"\x89HDF\r\n", "an HDF5 file", _EXPORT),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"\x80\x02", "a Python pickle", _EXPORT),
    (b"\x80\x03", "a Python pickle", _EXPORT),
    (b"\x80\x04", "a Python pickle", _EXPORT),
    (b"\x80\x05", "a Python pickle", _EXPORT),
    (b"%PDF", "a PDF document", _EXPORT),
    (b"{\\rtf", "an RTF document", "Save it as plain text."),
    (b"\x89PNG", "an image", _FETCH),
    (b"\xff\xd8\xff", "an image", _FETCH),
    (b"\x7fELF", "a program", _FETCH),
)
_MARKUP: tuple[tuple[bytes, str, str], ...] = (
    (
        b"<!doctype html",
        "an HTML page, not data",
        "A login or error page may have been saved in its place: fetch the raw file.",
    ),
    (b"<html", "an HTML page, not data", "Fetch the raw file, not the page that shows it."),
    (
        b"<?xml",
        "an XML document",
        "If it is a server's error message, fetch the file again; otherwise export its rows.",
    ),
)
_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# Control characters that no text holds; 0x01, 0x02, 0x1e and 0x1f part the fields of some exports.
_CONTROLS = bytes(c for c in range(32) if c not in (*b"\t\n\v\f\r\x1b", 1, 2, 0x1E, 0x1F))


def refuse_foreign(path: str, head: bytes) -> None:
    """Raises `DataError` when the first bytes of a file, unpacked, cannot be rows in UTF-8."""
    named = _name_of(head)
    if named is not None:
        raise DataError(f"{path} is {named[0]}. {named[1]}")
    encoding = _wide_encoding(head)
    if encoding is not None:
        source = encoding.split(" ")[0]
        raise DataError(
            f"{path} is {encoding}, not UTF-8. Convert it with: "
            f"iconv -f {source} -t UTF-8 '{path}' > converted"
        )
    text = head.rstrip(b"\0")
    controls = 1 - len(text.translate(None, _CONTROLS)) / len(text)
    if controls > (0.2 if _is_utf8(text) else 0.03):
        raise DataError(
            f"{path} holds binary data of a kind that is not known here (it begins with "
            f"{head[:8].hex(' ')}). {_EXPORT}"
        )


def _is_utf8(head: bytes) -> bool:
    """Whether the beginning of a file is UTF-8; its last character may be cut off."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4
    return True


def _name_of(head: bytes) -> tuple[str, str] | None:
    if not head.strip(b"\0"):
        return "nothing but zero bytes: a torn copy or download", _FETCH
    if head[257:262] == b"ustar":
        return "a tar archive", "Unpack it (tar -xf), and give the file that was in it."
    for beginning, what, fix in _BEGINNINGS:
        if head.startswith(beginning):
            return what, fix
    text = head[:256].removeprefix(UTF8_BOM).lstrip().lower()
    for beginning, what, fix in _MARKUP:
        if text.startswith(beginning):
            return what, fix
    return None


def _wide_encoding(head: bytes) -> str | None:
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None)
    if encoding is not None:
        return encoding
    text = head[:4096].rstrip(b"\0")
    if text.count(0) * 5 > len(text):
        high_first, low_first = text[0::2].count(0), text[1::2].count(0)
        if max(high_first, low_first) * 2.5 > len(text) / 2:
            order = "BE" if high_first > low_first else "LE"
            return f"UTF-16{order} (no byte order mark)"
    return None

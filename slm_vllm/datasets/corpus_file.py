"""A retrieval corpus from files of any supported form."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.batches import batched
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES, line_batches
from slm_vllm.datasets.reading.opening import PACKED_SUFFIXES, open_bytes
from slm_vllm.datasets.reading.record import Place, Record, ignore
from slm_vllm.datasets.reading.records import Form, find_form, read_records
from slm_vllm.datasets.rows.evidence import Paragraph, holds_text, paragraphs_of
from slm_vllm.datasets.schema import DOCUMENT
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.nearest import nearest
from slm_vllm.types import RejectedRow

# What `corpus.columns` may map, and the names that are looked for before all others.
_KEYS = {"id": "document_id", "title": "title", "text": "text"}

_BATCH_ROWS = 1000
_TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
_TEXTS = (".txt", ".text", ".md")
_BARE = "tsv without a header"


class CorpusFile:
    """Documents in JSON Lines, JSON, CSV, TSV, Parquet or Arrow, or a folder of these or of texts.

    Ids, titles and texts are found under the names that public corpora use: `_id`, `title`, `text`
    (BEIR), `id`, `text`, `title` (DPR's TSV), `id`, `contents` (Pyserini, FlashRAG); also a TSV of
    ids and texts without a header (MS MARCO). A document without an id gets one from its content.

    Args:
        path: A file, packed or not; a path with `*`; a folder. Of a folder with `corpus.jsonl`
            (BEIR) only that is read. A folder of texts (`.txt`, `.md`) gives one document for each
            file: its path below the folder is the id, its name the title.
        columns: Names of the columns that hold `id`, `title` and `text`, where they are called
            otherwise.
        on_reject: Called for each row that holds no document.

    Raises:
        ConfigError: `columns` maps something else than these.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        columns: Mapping[str, str] | None = None,
        on_reject: Callable[[RejectedRow], None] = ignore,
    ) -> None:
        self.path = str(path)
        self._columns = dict(columns or {})
        self._on_reject = on_reject
        for field in self._columns:
            if field not in _KEYS:
                raise ConfigError(
                    f"corpus.columns.{field}: there is no such field. {nearest(field, _KEYS)}"
                )

    def documents(self) -> Iterator[pl.DataFrame]:
        """Yields frames with document_id, title and text, in the order of the files.

        Raises:
            DataError: A file is missing, damaged or of no known form, or there is no document.
        """
        is_empty = True
        for batch in batched(self.paragraphs(), _characters, MAX_BATCH_BYTES, _BATCH_ROWS):
            is_empty = False
            yield pl.DataFrame([one.document for one in batch], schema=dict(DOCUMENT))
        if is_empty:
            raise DataError(f"{self.path} holds no document with text")

    def paragraphs(self) -> Iterator[Paragraph]:
        """Yields the documents one by one; see `documents`."""
        for file in self.files():
            if _suffix(file) in _TEXTS:
                yield from self._text(file)
            else:
                yield from self._rows(file)

    def files(self) -> list[str]:
        """The files that are read, in order.

        Raises:
            DataError: There are none, or it is not clear which.
        """
        if "*" in self.path:
            found = sorted(name for name in glob(self.path, recursive=True) if os.path.isfile(name))
            if not found:
                raise DataError(f"{self.path}: no file matches. Check corpus.path")
            return found
        folder = Path(self.path)
        if not folder.is_dir():
            return [self.path]
        inside = sorted(str(file) for file in folder.rglob("*") if file.is_file())
        of_beir = [name for name in inside if Path(name).name.startswith("corpus.jsonl")]
        tables = of_beir[:1] or [name for name in inside if _suffix(name) in _TABLES]
        texts = [name for name in inside if _suffix(name) in _TEXTS]
        if tables and texts and not of_beir:
            raise DataError(
                f"{self.path} holds texts ({texts[0]}) and tables ({tables[0]}). Say which are the "
                f"corpus: corpus.path='{self.path}/**/*{_suffix(tables[0])}'"
            )
        if not tables and not texts:
            raise DataError(f"{self.path} holds none of {', '.join((*_TABLES, *_TEXTS))}")
        return tables or texts

    def _rows(self, file: str) -> Iterator[Paragraph]:
        form = self._form(file)
        records = (
            _bare_records(file, self._on_reject)
            if form.name == _BARE
            else read_records(file, form, self._is_document, self._on_reject)
        )
        for record in records:
            value = self._renamed(record.value)

            def lose(reason: str, record: Record = record) -> None:
                excerpt = json.dumps(record.value, ensure_ascii=False, default=str)
                self._on_reject(record.place.rejected(file, reason, excerpt))

            yield from paragraphs_of(value, "corpus", lose)

    def _form(self, file: str) -> Form:
        form = find_form(file, self._is_document)
        is_known = bool(self._columns) or holds_text(dict.fromkeys(form.columns))
        if form.name in ("csv", "jsonl") and not is_known and _is_bare(file):
            return Form(_BARE, ("id", "text"))
        if form.columns:
            found = self._renamed(dict.fromkeys(form.columns))
            missing = [column for column in self._columns.values() if column not in form.columns]
            if missing or not holds_text(found):
                wanted = f"no column {missing[0]!r}" if missing else "no column with texts"
                raise DataError(
                    f"{file} has {wanted}. Found: {form}. Name the columns with "
                    "corpus.columns.text=... (also id, title)"
                )
        return form

    def _is_document(self, value: Mapping[str, Any]) -> bool:
        return self._columns.get("text") in value or holds_text(value)

    def _renamed(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with the mapped columns under the names they are looked for."""
        named = {_KEYS[field]: value.get(column) for field, column in self._columns.items()}
        return {**value, **named} if named else value

    def _text(self, file: str) -> Iterator[Paragraph]:
        folder = self.path if os.path.isdir(self.path) else os.path.dirname(file)
        name = Path(os.path.relpath(file, folder)).as_posix()
        if not os.path.getsize(file):
            return
        with open_bytes(file) as opened:
            raw = opened.read()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            reason = f"not UTF-8: byte 0x{raw[error.start]:02x} at byte offset {error.start}"
            self._on_reject(Place(1).rejected(file, reason, raw[:80].decode("utf-8", "replace")))
            return
        if text.strip():
            yield Paragraph(text, Path(name).name.split(".")[0], name=name)


def _characters(paragraph: Paragraph) -> int:
    return len(paragraph.text)


def _suffix(name: str) -> str:
    """The ending that says what a file holds, below what it is packed with."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    while suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_bare(file: str) -> bool:
    """Whether the first lines are an id without white space, a tab and a text, and no header."""
    lines = islice(
        (line for batch in line_batches(file, ignore, max_rows=20) for line in batch), 20
    )
    fields = [line.text.split("\t") for line in lines]
    if not all(len(f) == 2 and f[0] and not set(f[0]) & set(" {[") for f in fields):
        return False
    return bool(fields) and not (fields[0][1].isascii() and fields[0][1].isidentifier())


def _bare_records(file: str, reject: Callable[[RejectedRow], None]) -> Iterator[Record]:
    for batch in line_batches(file, reject):
        for line in batch:
            name, tab, text = line.text.partition("\t")
            if tab:
                yield Record(Place(line.number), {"id": name, "text": text})
            else:
                reject(Place(line.number).rejected(file, "no tab after the id", line.text))

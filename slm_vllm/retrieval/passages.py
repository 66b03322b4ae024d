"""From documents to the passages a retriever searches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from slm_vllm.config.schema import PassageConfig
from slm_vllm.datasets.batches import batched
from slm_vllm.errors import DataError
from slm_vllm.retrieval.chunking import cut_windows
from slm_vllm.types import DOCUMENT_FIELDS

PASSAGE_SCHEMA = pl.Schema(
    {
        "passage_id": pl.String,
        "document_id": pl.String,
        "title": pl.String,
        "text": pl.String,
        "start": pl.Int64,  # in characters of the cleaned document
    }
)

BATCH_CHARACTERS = 4_000_000
"""Documents cut at once. Bounds memory: the arrays over a batch take about 20 bytes a character."""


class OtherDocumentsError(Exception):
    """The documents are not those that an interrupted build has read."""


@dataclass
class DocumentFilter:
    """Lets each document through once.

    A document is dropped when its title and text were seen before, under whatever id; its id is
    then an alias of the id it was first seen under. Two texts under one id are both kept (two
    excerpts of one page), the later one's passages with a numbered id.

    Args:
        done: An interrupted build has cut the first so many documents.
        done_hash: Their `corpus_hash`.

    Attributes:
        aliases: Id of a dropped document -> id of the one that was kept.
        n_seen: Documents looked at.
        n_kept: Documents let through.
    """

    done: int = 0
    done_hash: str = ""
    aliases: dict[str, str] = field(default_factory=dict)
    n_seen: int = 0
    n_kept: int = 0
    _by_content: dict[bytes, str] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    _corpus: hashlib._Hash = field(default_factory=lambda: hashlib.sha256(), repr=False)

    def admit(self, document_id: str, title: str, text: str) -> str | None:
        """The prefix for the ids of its passages, or None for a document seen before.

        Raises:
            OtherDocumentsError: Those that are done are others.
        """
        digest = hashlib.sha256(f"{title}\x00{text}".encode("utf-8", "replace")).digest()
        self._corpus.update(document_id.encode("utf-8", "replace") + b"\x00" + digest)
        self.n_seen += 1
        if self.n_seen == self.done and self.corpus_hash != self.done_hash:
            raise OtherDocumentsError
        known = self._by_content.get(digest)
        if known is not None:
            if known != document_id:
                self.aliases.setdefault(document_id, known)
            return None
        self._by_content[digest] = document_id
        self.n_kept += 1
        version = self._versions.get(document_id, 0) + 1
        self._versions[document_id] = version
        return document_id if version == 1 else f"{document_id}~{version}"

    @property
    def corpus_hash(self) -> str:
        """Names the content of all documents seen so far, in their order."""
        return self._corpus.hexdigest()


class _Admitted(NamedTuple):
    prefix: str
    document_id: str
    title: str
    text: str


def iter_passages(
    documents: Iterable[pl.DataFrame],
    config: PassageConfig,
    seen: DocumentFilter | None = None,
) -> Iterator[pl.DataFrame]:
    """Cuts documents into passages, batch by batch.

    Args:
        documents: Frames with the columns document_id, title and text.
        config: Size and stride of the windows in words.
        seen: Remembers what was let through; read its aliases and hash when the iterator is done.
            Its documents that are `done` are looked at and not cut.

    Yields:
        Frames of `PASSAGE_SCHEMA` of bounded size, documents in order.

    Raises:
        DataError: A frame lacks a column.
        OtherDocumentsError: Those that are done are others.
    """
    admitted = _admitted(documents, seen if seen is not None else DocumentFilter())
    for batch in batched(admitted, _characters, BATCH_CHARACTERS):
        yield _cut(batch, config)


def _admitted(documents: Iterable[pl.DataFrame], seen: DocumentFilter) -> Iterator[_Admitted]:
    """The documents that have to be cut."""
    for frame in documents:
        for document_id, title, text in _rows(frame):
            prefix = seen.admit(document_id, title, text)
            if prefix is not None and text and seen.n_seen > seen.done:
                yield _Admitted(prefix, document_id, title, text)
    if seen.n_seen < seen.done:
        raise OtherDocumentsError


def _characters(document: _Admitted) -> int:
    return len(document.text)


def _rows(frame: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    missing = [name for name in DOCUMENT_FIELDS if name not in frame.columns]
    if missing:
        raise DataError(
            f"A frame of documents has no column '{missing[0]}'; it has "
            f"{', '.join(frame.columns) or 'none'}. Needed: {', '.join(DOCUMENT_FIELDS)}"
        )
    columns = frame.select(
        pl.col("document_id").cast(pl.String).fill_null(""),
        pl.col("title").cast(pl.String).fill_null(""),
        pl.col("text").cast(pl.String).fill_null(""),
    )
    return iter(columns.iter_rows())


def _cut(documents: list[_Admitted], config: PassageConfig) -> pl.DataFrame:
    windows = cut_windows([document.text for document in documents], config)
    names = [document[:3] for document in documents]
    schema = {"prefix": pl.String, "document_id": pl.String, "title": pl.String}
    by_document = pl.DataFrame(names, schema, orient="row")[windows.text_index]
    start = pl.Series("start", windows.starts, dtype=pl.Int64)
    return by_document.select(
        passage_id=pl.concat_str("prefix", pl.lit(":"), start.cast(pl.String)),
        document_id="document_id",
        title="title",
        text=pl.Series("text", windows.texts, dtype=pl.String),
        start=start,
    )

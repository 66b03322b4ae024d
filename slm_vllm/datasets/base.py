"""`BaseDataset`: the interface of a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import polars as pl

from slm_vllm.datasets.schema import DOCUMENT
from slm_vllm.types import RejectedRow

BATCH_ROWS = 1024
_PART_BYTES = 8 << 20
NO_DOCUMENTS = pl.DataFrame(schema=dict(DOCUMENT))


class BaseDataset(ABC):
    """Question-answer rows read from one file, in batches, in bounded memory.

    Args:
        path: The file (or folder, or URL) to read.
        on_reject: Called once for each row that is left out. Under `--strict` the caller raises
            from it, which ends the scan.
    """

    kind: ClassVar[str]
    """The word that names this class in a dataset YAML (`dataset.kind`)."""

    def __init__(
        self, path: str | Path, *, on_reject: Callable[[RejectedRow], None] | None = None
    ) -> None:
        self.path = str(path)
        self._on_reject = on_reject

    @abstractmethod
    def scan(
        self, batch_size: int = BATCH_ROWS, *, with_documents: bool = True
    ) -> Iterator[pl.DataFrame]:
        """Yields frames of `CANONICAL_SCHEMA` with at most `batch_size` rows, in file order.

        Args:
            batch_size: Most rows in a frame; frames of long rows have fewer.
            with_documents: False leaves the lists of `documents` empty, and nothing should be
                spent on what would be in them. The other columns and the rejected rows are the
                same either way. Closed-book and oracle runs read this way.

        Raises:
            DataError: The file is missing, empty, damaged as a whole, of another layout, or holds
                no usable row. The message names the file and what was found.
        """

    @property
    def notices(self) -> list[str]:
        """What the last scan left out of rows that it gave, in words."""
        return []

    def corpus(self) -> Iterator[pl.DataFrame]:
        """Yields what a retriever may search: frames with document_id, title and text.

        By default the documents of all rows. A dataset whose corpus is a file of its own yields
        that instead.
        """
        for frame in self.scan():
            documents = frame.select(pl.col("documents").explode()).drop_nulls()
            yield documents.unnest("documents") if documents.height else NO_DOCUMENTS

    def qrels(self) -> Mapping[str, Mapping[str, int]] | None:
        """How relevant which documents are, by question_id and document_id.

        None, as by default: each row's own documents are relevant, all to the same degree.
        """
        return None

    def reject(self, row: RejectedRow) -> None:
        """Reports a row that is left out."""
        if self._on_reject is not None:
            self._on_reject(row)


def limited_scan(
    dataset: BaseDataset, max_rows: int | None, *, with_documents: bool = False
) -> Iterator[pl.DataFrame]:
    """The dataset's frames, up to `max_rows` rows in all.

    Documents cost the most to read (whole pages), so they are left out unless asked for.
    """
    left = max_rows
    size = BATCH_ROWS
    if max_rows is not None:  # in equal parts, so that few rows behind the last one are read
        size = -(-max_rows // max(1, -(-max_rows // BATCH_ROWS)))
    for frame in dataset.scan(size, with_documents=with_documents):
        yield from _parts(frame if left is None else frame.head(left))
        if left is not None and (left := left - frame.height) <= 0:
            return


def _parts(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The frame in pieces of a few MiB, so that a signal is obeyed in time whatever the rows."""
    n = int(frame.drop("documents").estimated_size()) // _PART_BYTES + 1
    yield from frame.iter_slices(-(-frame.height // n)) if n > 1 else (frame,)

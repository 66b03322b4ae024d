"""What all datasets of this package share: checks of each row, duplicates, the empty file."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.datasets.base import BaseDataset
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.datasets.rows.values import Document
from slm_vllm.datasets.schema import CANONICAL_SCHEMA
from slm_vllm.datasets.seen_ids import SeenIds
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

DUPLICATE = "duplicate question_id"
"""How the reason of a row that is rejected as a duplicate begins."""

_REASONS_SHOWN = 3
_METADATA = json.JSONEncoder(ensure_ascii=False, default=str)


@dataclass(slots=True)
class SourceRow:
    """One canonical row and the line of the file it begins on."""

    line: int
    question_id: str
    question: str
    answers: list[str]
    contexts: list[str] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class NumberedFrame:
    """A frame of `CANONICAL_SCHEMA` and the line of each of its rows."""

    frame: pl.DataFrame
    lines: list[int]


class FileDataset(BaseDataset):
    """A dataset that gives numbered frames; `scan` admits each row or rejects it."""

    def __init__(
        self, path: str | Path, *, on_reject: Callable[[RejectedRow], None] | None = None
    ) -> None:
        super().__init__(path, on_reject=on_reject)
        self._rejected: list[str] = []
        self._n_rejected = 0

    @abstractmethod
    def frames(self, batch_size: int, with_documents: bool) -> Iterator[NumberedFrame]:
        """Yields at most `batch_size` rows at a time, in file order.

        Rows that cannot be decoded are rejected here; what `scan` checks need not be.
        """

    def scan(self, batch_size: int = 256, *, with_documents: bool = True) -> Iterator[pl.DataFrame]:
        """See `BaseDataset.scan`.

        A row without a question, or with the question_id of an earlier row, is rejected. A row
        without a usable answer is kept, with an empty list.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._rejected, self._n_rejected = [], 0
        seen = SeenIds()
        usable = 0
        for numbered in self.frames(batch_size, with_documents):
            frame = self._admit(numbered, seen)
            usable += frame.height
            if frame.height:
                yield frame
        if not usable:
            raise DataError(self._nothing_usable())

    def reject(self, row: RejectedRow) -> None:
        """Reports a row that is left out, and keeps the first reasons for the final error."""
        self._n_rejected += 1
        if len(self._rejected) < _REASONS_SHOWN:
            self._rejected.append(f"line {row.line}: {row.reason}")
        super().reject(row)

    def _admit(self, numbered: NumberedFrame, seen: SeenIds) -> pl.DataFrame:
        frame = numbered.frame
        asked = frame.select(
            (pl.col("question").str.strip_chars() != "").fill_null(False)
        ).to_series()
        ids = pl.select(
            pl.when(asked).then(frame["question_id"]).otherwise(None).alias("question_id")
        ).to_series()
        repeated = seen.add(ids)
        admitted = asked & ~repeated
        if admitted.all():
            return frame
        for at in (~admitted).arg_true():
            name, question = ids[at], frame["question"][at] or ""
            reason = "the question is empty"
            if name is not None:
                reason = f"{DUPLICATE} {name!r}: an earlier row has it"
            line = numbered.lines[at]
            self.reject(RejectedRow(self.path, line, reason, question[:EXCERPT_CHARACTERS]))
        return frame.filter(admitted)

    def _nothing_usable(self) -> str:
        if not self._n_rejected:
            return f"{self.path} holds no rows. Fetch or convert it again."
        reasons = "; ".join(self._rejected)
        more = self._n_rejected - len(self._rejected)
        return (
            f"{self.path} holds no usable row: all {self._n_rejected:,} were rejected "
            f"({reasons}{f'; and {more:,} more' if more else ''}). Check that the file is what "
            "--dataset says."
        )


def to_frame(rows: list[SourceRow]) -> NumberedFrame:
    """Puts rows into one frame of `CANONICAL_SCHEMA`."""
    frame = pl.DataFrame(
        {
            "question_id": [row.question_id for row in rows],
            "question": [row.question for row in rows],
            "answers": _lists([row.answers for row in rows], "answers"),
            "contexts": _lists([row.contexts for row in rows], "contexts"),
            "documents": _lists([row.documents for row in rows], "documents"),
            "metadata": [_METADATA.encode(row.metadata) for row in rows],
        },
        schema=CANONICAL_SCHEMA,
    )
    return NumberedFrame(frame, [row.line for row in rows])


def _lists(values: Sequence[Sequence[Any]], column: str) -> pl.Series:
    """A list column, built flat and then grouped: polars infers nested values one by one."""
    dtype = CANONICAL_SCHEMA[column]
    assert isinstance(dtype, pl.List)
    flat = [item for items in values for item in items]
    if not flat:
        return pl.Series(column, [[]], dtype=dtype).new_from_index(0, len(values))
    if isinstance(dtype.inner, pl.Struct):
        fields = {field.name: [item[field.name] for item in flat] for field in dtype.inner.fields}
        items = pl.DataFrame(fields, schema=dict(dtype.inner)).to_struct(column)
    else:
        items = pl.Series(column, flat, dtype=dtype.inner)
    rows = np.repeat(np.arange(len(values)), [len(items) for items in values])
    grouped = pl.DataFrame([pl.Series("row", rows), items]).group_by("row").agg(column)
    return (
        pl.DataFrame({"row": np.arange(len(values))})
        .join(grouped, on="row", how="left", maintain_order="left")[column]
        .fill_null(pl.Series([[]], dtype=dtype))
    )


def in_frames(
    rows: Iterator[SourceRow], batch_size: int, max_characters: int
) -> Iterator[NumberedFrame]:
    """Collects rows into frames of at most `batch_size` rows and about `max_characters`."""
    batch: list[SourceRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(document["text"]) for document in row.documents)
        size += sum(map(len, row.contexts)) + len(row.question)
        if len(batch) >= batch_size or size >= max_characters:
            yield to_frame(batch)
            batch, size = [], 0
    if batch:
        yield to_frame(batch)

"""Collects canonical rows into frames of bounded size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.datasets.batches import batched
from slm_vllm.datasets.reading.record import Place
from slm_vllm.datasets.rows.values import Document
from slm_vllm.datasets.schema import CANONICAL_SCHEMA

_DEEPEST = 100
_METADATA = json.JSONEncoder(ensure_ascii=False, default=str, allow_nan=False)


@dataclass(slots=True)
class SourceRow:
    """One canonical row.

    Attributes:
        place: Where it stands in its file.
        question_id: Its name.
        other_id: Its name where an earlier row has `question_id`; "" where that is then the same
            row once more.
    """

    place: Place
    question_id: str
    question: str
    answers: list[str]
    contexts: list[str] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    other_id: str = ""
    path: str = ""


@dataclass(slots=True)
class NumberedFrame:
    """A frame of `CANONICAL_SCHEMA`.

    Attributes:
        frame: Its rows.
        places: Where each stands in its file.
        path: The file.
        other_ids: See `SourceRow.other_id`; none where every row has "".
    """

    frame: pl.DataFrame
    places: list[Place]
    path: str
    other_ids: Sequence[str] = ()


def to_frame(rows: list[SourceRow]) -> NumberedFrame:
    """Puts rows into one frame of `CANONICAL_SCHEMA`."""
    frame = canonical_frame(
        [row.question_id for row in rows],
        [row.question for row in rows],
        [row.answers for row in rows],
        [row.contexts for row in rows],
        [row.documents for row in rows],
        [encoded(row.metadata) for row in rows],
    )
    places, others = [row.place for row in rows], [row.other_id for row in rows]
    return NumberedFrame(frame, places, rows[0].path, others)


def canonical_frame(
    question_ids: Sequence[str],
    questions: Sequence[str],
    answers: Sequence[Sequence[str]],
    contexts: Sequence[Sequence[str]],
    documents: Sequence[Sequence[Document]],
    metadata: Sequence[str],
) -> pl.DataFrame:
    """A frame of `CANONICAL_SCHEMA` from its columns."""
    return pl.DataFrame(
        {
            "question_id": question_ids,
            "question": questions,
            "answers": list_column(answers, "answers"),
            "contexts": list_column(contexts, "contexts"),
            "documents": list_column(documents, "documents"),
            "metadata": metadata,
        },
        schema=CANONICAL_SCHEMA,
    )


def encoded(metadata: dict[str, Any]) -> str:
    """The column `metadata` of a row: JSON, without what JSON has not."""
    try:
        return _METADATA.encode(metadata)
    except (ValueError, TypeError, RecursionError):
        return _METADATA.encode(_plain(metadata))


def _plain(value: Any, depth: int = 0) -> Any:
    """Brings a value to what JSON has: no NaN, no keys but texts, no endless nesting."""
    if (isinstance(value, float) and not math.isfinite(value)) or depth > _DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(kept, depth + 1) for key, kept in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return value


def list_column(values: Sequence[Sequence[Any]], column: str) -> pl.Series:
    """A list column, built flat and then grouped: polars infers nested values one by one."""
    dtype = CANONICAL_SCHEMA[column]
    assert isinstance(dtype, pl.List)
    flat = [item for items in values for item in items]
    if not flat:
        empty: pl.Series = pl.Series(column, [[]], dtype=dtype).new_from_index(0, len(values))
        return empty
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
    return map(to_frame, batched(rows, _characters, max_characters, batch_size))


def _characters(row: SourceRow) -> int:
    documents = sum(len(document["text"]) for document in row.documents)
    return documents + sum(map(len, row.contexts)) + len(row.question)

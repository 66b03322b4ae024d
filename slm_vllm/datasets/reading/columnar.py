"""Canonical rows in Parquet: the form that streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.file_dataset import NumberedFrame
from slm_vllm.datasets.reading.records import Layout, require_columns
from slm_vllm.datasets.schema import CANONICAL_SCHEMA
from slm_vllm.errors import DataError

ROW_GROUP_ROWS = 1000
ROW_GROUP_BYTES = 16 << 20  # a reader holds several row groups at a time


def canonical_frames(
    path: str, layout: Layout, batch_size: int, with_documents: bool = True
) -> Iterator[NumberedFrame]:
    """Yields the rows of a Parquet file that has `CANONICAL_SCHEMA`; line n is its nth row.

    Columns beyond question_id, question and answers may be missing. Without
    documents their column is not read.

    Raises:
        DataError: A needed column is missing, has another type, or the file is damaged.
    """
    require_columns(path, layout, ("question_id",), ("question",), ("answers",))
    lazy = pl.scan_parquet(path)
    present = set(layout.columns) - (set() if with_documents else {"documents"})
    columns = [
        (pl.col(name) if name in present else pl.lit(None).alias(name)).cast(dtype)
        for name, dtype in CANONICAL_SCHEMA.items()
    ]
    filled = [
        pl.col("question_id", "question").fill_null(""),
        pl.col("answers")
        .fill_null([])
        .list.filter((pl.element().str.strip_chars() != "").fill_null(False)),
        pl.col("contexts", "documents").fill_null([]),
        pl.col("metadata").fill_null("{}"),
    ]
    at = 1
    for frame in parquet_batches(path, lazy.select(columns).with_columns(filled), batch_size):
        yield NumberedFrame(frame, list(range(at, at + frame.height)))
        at += frame.height


def parquet_batches(path: str, lazy: pl.LazyFrame, batch_size: int) -> Iterator[pl.DataFrame]:
    """Yields the rows of a lazy frame in order, at most `batch_size` at a time."""
    try:
        for frame in lazy.collect_batches(chunk_size=batch_size, maintain_order=True):
            yield from frame.iter_slices(batch_size)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def write_parquet(path: Path, frames: Iterable[pl.DataFrame]) -> None:
    """Writes canonical frames as they come, with zstd compression.

    Row groups have up to 1,000 rows, fewer where the first frame says that 1,000 would be more
    than 16 MB.

    Raises:
        Whatever `frames` raises, and OSError.
    """
    from polars.io.plugins import register_io_source

    source = iter(frames)
    first = next(source, pl.DataFrame(schema=CANONICAL_SCHEMA))
    row_bytes = max(1, first.estimated_size() // max(1, first.height))
    rows = max(1, min(ROW_GROUP_ROWS, int(ROW_GROUP_BYTES // row_bytes)))
    failures: list[BaseException] = []

    def read(*_: Any) -> Iterator[pl.DataFrame]:
        try:
            yield from chain([first], source)
        except BaseException as error:
            failures.append(error)
            raise

    generator: Callable[..., Iterator[pl.DataFrame]] = read
    try:
        register_io_source(generator, schema=CANONICAL_SCHEMA).sink_parquet(
            path, compression="zstd", row_group_size=rows, maintain_order=True
        )
    except BaseException:
        if failures:
            raise failures[0] from None
        raise

"""Columnar files: Parquet, Arrow and Feather."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.schema import CANONICAL_SCHEMA
from slm_vllm.errors import DataError, first_line

ROW_GROUP_ROWS = 1000
ROW_GROUP_BYTES = 16 << 20  # a reader holds several row groups at a time

ERRORS = (Exception, pl.exceptions.PanicException)
"""What polars raises of a file it cannot read; a panic, of some damaged ones, is no Exception."""


def open_table(path: str, head: bytes) -> tuple[str, pl.LazyFrame] | None:
    """Opens a file in columns: "parquet" or "arrow" and its table; None where it is neither.

    Raises:
        DataError: It is truncated or corrupt.
    """
    opened = next((form for magic, form in _FORMS.items() if head.startswith(magic)), None)
    if opened is None:
        return None
    form, scan = opened
    try:
        table = scan(path)
        table.collect_schema()
    except ERRORS as error:
        raise DataError(
            f"{path}: the {form.capitalize()} file is truncated or corrupt ({first_line(error)}). "
            "Fetch or convert it again; if it is packed (.gz, .zst), unpack it."
        ) from error
    return form, table


def is_canonical(schema: pl.Schema) -> bool:
    """Whether a table has the columns of `CANONICAL_SCHEMA` with their types, most of them."""
    needed = {"question_id", "question", "answers"} <= set(schema)
    return needed and all(
        schema[name] == dtype for name, dtype in CANONICAL_SCHEMA.items() if name in schema
    )


def canonical_table(table: pl.LazyFrame, with_documents: bool) -> pl.LazyFrame:
    """Gives the canonical columns of a table that has them; those it lacks are empty.

    Without documents their column is not read.
    """
    present = set(table.collect_schema()) - (set() if with_documents else {"documents"})
    columns = [
        (pl.col(name) if name in present else pl.lit(None).alias(name)).cast(dtype)
        for name, dtype in CANONICAL_SCHEMA.items()
    ]
    return table.select(columns).with_columns(
        pl.col("question_id", "question").fill_null(""),
        pl.col("answers")
        .fill_null([])
        .list.filter((pl.element().str.strip_chars() != "").fill_null(False)),
        pl.col("contexts", "documents").fill_null([]),
        pl.col("metadata").fill_null("{}"),
    )


def table_batches(path: str, table: pl.LazyFrame, batch_size: int) -> Iterator[pl.DataFrame]:
    """Yields the rows of a table in order, at most `batch_size` at a time."""
    try:
        for frame in table.collect_batches(chunk_size=batch_size, maintain_order=True):
            yield from frame.iter_slices(batch_size)
    except ERRORS as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error


def table_rows(
    path: str, table: pl.LazyFrame, batch_size: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of a table with their numbers, from 1."""
    number = 0
    for frame in table_batches(path, table, batch_size):
        try:
            # A small float is the number that it is written as, not the next larger one.
            small = pl.col(pl.Float32).cast(pl.String).cast(pl.Float64)
            rows = frame.with_columns(small).rows(named=True)
        except ERRORS as error:  # a date that Python does not have
            raise DataError(
                f"{path} cannot be read between row {number + 1} and {number + frame.height}: "
                f"{first_line(error)}"
            ) from error
        for row in rows:
            number += 1
            yield number, row


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


def _scan_stream(path: str) -> pl.LazyFrame:
    """Reads an Arrow stream, as `datasets` keeps them in its cache: whole, since polars must."""
    return pl.read_ipc_stream(path).lazy()


_FORMS: dict[bytes, tuple[str, Callable[[str], pl.LazyFrame]]] = {
    b"PAR1": ("parquet", lambda path: pl.scan_parquet(path, glob=False)),
    b"ARROW1": ("arrow", lambda path: pl.scan_ipc(path, glob=False)),
    b"\xff\xff\xff\xff": ("arrow", _scan_stream),
}

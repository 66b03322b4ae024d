"""`predictions.parquet`: one row for each question, with its answer and its scores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from slm_vllm.errors import first_line
from slm_vllm.rundir.files import damaged, unreadable
from slm_vllm.rundir.journal import JOURNAL_SCHEMA, SAMPLE
from slm_vllm.scoring.metrics import METRICS

ROW_GROUP = 10_000
"""Rows of it that are written, and best read, at once."""

_NEEDED = ("question_id", "question", "answers", "prediction")


def predictions_schema() -> pl.Schema:
    """The columns of the file, one for each metric there is among them."""
    return pl.Schema(
        {name: dtype for name, dtype in JOURNAL_SCHEMA.items() if name != "key"}
        | {metric: pl.Float64() for metric in METRICS}
    )


def sampled_schema() -> pl.Schema:
    """The columns of a run that keeps several answers to a question, each with its scores."""
    fields = {**dict(SAMPLE), **{metric: pl.Float64() for metric in METRICS}}
    return pl.Schema({**predictions_schema(), "samples": pl.List(pl.Struct(fields))})


def predictions_columns(path: Path) -> list[str]:
    """The columns of a file of this or another version.

    Raises:
        DataError: It is missing, damaged or of another layout.
        StorageError: It may not be read.
    """
    with _as_user_errors(path):
        schema = pl.scan_parquet(path, glob=False).collect_schema()
    for name, expected in predictions_schema().items():
        found = schema.get(name)
        if found != expected and (found is not None or name in _NEEDED):
            raise damaged(path, f"column '{name}' is {found or 'missing'}, not {expected}")
    return list(schema)


def read_predictions(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Reads columns of `predictions_schema` or of the file; what the file lacks is null.

    Raises:
        DataError: It is missing, damaged or of another layout.
        StorageError: It may not be read.
    """
    present = predictions_columns(path)
    with _as_user_errors(path):
        frame = pl.read_parquet(path, glob=False, columns=[c for c in columns if c in present])
    lacking = [name for name in columns if name not in present]
    schema = predictions_schema()
    nulls = (pl.lit(None, dtype=schema[name]).alias(name) for name in lacking)
    return frame.with_columns(nulls).select(columns)


@contextlib.contextmanager
def _as_user_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise unreadable(path, error) from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        # A damaged file makes polars panic in places; the panic is no exception of Python's kind.
        raise damaged(path, first_line(error)) from None

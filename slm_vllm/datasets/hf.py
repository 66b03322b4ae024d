"""Hugging Face datasets, read through polars' `hf://` paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.file_dataset import FileDataset, NumberedFrame, SourceRow, in_frames
from slm_vllm.datasets.qa_pairs import pair_row
from slm_vllm.datasets.reading.columnar import parquet_batches
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES
from slm_vllm.datasets.reading.opening import require_file
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.datasets.rows.values import ValueProblem
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.types import RejectedRow

FIELDS = ("question_id", "question", "answers", "contexts", "documents")


class HfDataset(FileDataset):
    """Parquet (or JSON Lines, CSV) files of a Hugging Face dataset.

    Args:
        path: `hf://datasets/OWNER/NAME/**/*.parquet`, `hf://datasets/OWNER/NAME@~parquet/...`, or
            a local file; names with `*` match several files.
        on_reject: See `BaseDataset`.
        columns: Which column holds a canonical field, as {"question": "query", "answers":
            "answers.text"}; a dot reaches into a struct. A field that is not named is taken from
            the column of its own name where there is one; `answers` also from `answer`, and
            `question_id` from `id`. "metadata" takes a list of columns to keep.
        split: Put in place of `{split}` in the path.
    """

    kind = "hf"

    def __init__(
        self,
        path: str | Path,
        *,
        on_reject: Callable[[RejectedRow], None] | None = None,
        columns: Mapping[str, Any] | None = None,
        split: str | None = None,
    ) -> None:
        text = str(path)
        if "{split}" in text:
            if split is None:
                raise ConfigError(f"{text} needs a split: set dataset.split=train (or another)")
            text = text.replace("{split}", split)
        elif split is not None:
            raise ConfigError(f"dataset.split={split} has no effect: put {{split}} in {text}")
        super().__init__(text, on_reject=on_reject)
        unknown = set(columns or {}) - {*FIELDS, "metadata"}
        if unknown:
            raise ConfigError(
                f"dataset.options.columns: unknown field {', '.join(sorted(unknown))}; "
                f"there are {', '.join(FIELDS)}, metadata"
            )
        self._columns = dict(columns or {})

    def frames(self, batch_size: int, with_documents: bool) -> Iterator[NumberedFrame]:
        """See `FileDataset.frames`."""
        yield from in_frames(self._rows(batch_size, with_documents), batch_size, MAX_BATCH_BYTES)

    def _rows(self, batch_size: int, with_documents: bool) -> Iterator[SourceRow]:
        lazy, schema = self._open()
        kept = list(self._columns.get("metadata") or [])
        mapping = self._mapping(schema)
        selected = [_reach(column, schema).alias(name) for name, column in mapping.items()]
        if kept:
            selected.append(
                pl.struct(_reach(name, schema).alias(name) for name in kept).alias("metadata")
            )
        rows = lazy.select(selected)
        if not with_documents and "documents" in mapping:
            if _is_sound(rows.select("documents").collect_schema()["documents"]):
                rows = rows.drop("documents")
        line = 0
        for frame in parquet_batches(self.path, rows, batch_size):
            for value in frame.iter_rows(named=True):
                line += 1
                try:
                    yield pair_row(line, value, "hf", with_documents=with_documents)
                except ValueProblem as problem:
                    excerpt = str(value.get("question") or "")[:EXCERPT_CHARACTERS]
                    self.reject(RejectedRow(self.path, line, str(problem), excerpt))

    def _open(self) -> tuple[pl.LazyFrame, pl.Schema]:
        """Opens the files; the schema is asked for here so that a failure shows early."""
        if "://" not in self.path and "*" not in self.path:
            require_file(self.path)
        scan: Callable[[str], pl.LazyFrame] = pl.scan_parquet
        if self.path.endswith((".jsonl", ".ndjson")):
            scan = pl.scan_ndjson
        elif self.path.endswith(".csv"):
            scan = pl.scan_csv
        try:
            lazy = scan(self.path)
            return lazy, lazy.collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            fix = "Check the path."
            if "://" in self.path:
                fix = (
                    "Check the network, the dataset's name, and HF_TOKEN where it is private; or "
                    "download its Parquet files and give their local path."
                )
            raise DataError(f"{self.path} cannot be read: {reason}. {fix}") from error

    def _mapping(self, schema: pl.Schema) -> dict[str, str]:
        own = {name: name for name in FIELDS if name in schema}
        if "answers" not in own and "answer" in schema:
            own["answers"] = "answer"
        if "question_id" not in own and "id" in schema:
            own["question_id"] = "id"
        named = {key: str(name) for key, name in self._columns.items() if key != "metadata"}
        mapping = own | named
        missing = [name for name in ("question", "answers") if name not in mapping]
        missing += [
            name
            for name in [*mapping.values(), *(self._columns.get("metadata") or [])]
            if name.split(".")[0] not in schema
        ]
        if missing:
            raise DataError(
                f"{self.path} has no column {', '.join(map(repr, missing))}. Found: "
                f"{', '.join(schema)}. Map it with dataset.options.columns, for example "
                "'dataset.options={columns: {question: query, answers: answer}}'."
            )
        return mapping


def _is_sound(documents: pl.DataType) -> bool:
    """Says whether values of this type are never a reason to reject a row."""
    if isinstance(documents, (pl.List, pl.Array)):
        documents = pl.Series(dtype=documents).explode().dtype
    if isinstance(documents, pl.Struct):
        return all(field.dtype == pl.String for field in documents.fields)
    return documents == pl.String


def _reach(column: str, schema: pl.Schema) -> pl.Expr:
    """Gives the expression for "answers.text"; a column of that very name comes first."""
    if column in schema:
        return pl.col(column)
    name, *fields = column.split(".")
    expression = pl.col(name)
    for field in fields:
        expression = expression.struct.field(field)
    return expression

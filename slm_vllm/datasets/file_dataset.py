"""The base of datasets read from files: row checks, duplicates, empty files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.amounts import counted
from slm_vllm.datasets.base import BATCH_ROWS, BaseDataset
from slm_vllm.datasets.frames import NumberedFrame, SourceRow, in_frames
from slm_vllm.datasets.reading.columnar import canonical_table, is_canonical, table_batches
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES
from slm_vllm.datasets.reading.record import Place, Record
from slm_vllm.datasets.reading.records import Form, find_form, read_records
from slm_vllm.datasets.rows.fields import FieldNames
from slm_vllm.datasets.rows.values import ValueProblem
from slm_vllm.datasets.seen_ids import SeenIds
from slm_vllm.errors import DataError
from slm_vllm.scoring.normalize import HANGUL
from slm_vllm.types import RejectedRow

DUPLICATE = "duplicate question_id"
"""How the reason of a row that is rejected as a duplicate begins."""

_REASONS_SHOWN = 3
_LOSSES_APART = 20
_MOSTLY = 0.5
_KOREAN = (
    "its answers are Korean, where particles are part of a word: a right answer within a sentence "
    "may count as wrong, so read its figures against each other only"
)

__all__ = ["DUPLICATE", "FileDataset", "NumberedFrame", "SourceRow", "require_columns"]


class FileDataset(BaseDataset):
    """A dataset read from a file of any form, row by row.

    A class of its own says in `row` what its records mean, and may override `is_row`,
    `check_columns` and `records`.

    Args:
        path: See `BaseDataset`.
        on_reject: See `BaseDataset`.
        columns: See `FieldNames`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        on_reject: Callable[[RejectedRow], None] | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(path, on_reject=on_reject)
        self.names = FieldNames(columns)
        self._mapped = bool(columns)
        self._first_rejected: list[RejectedRow] = []
        self._n_rejected = 0
        self._lost: dict[str, list[int]] = {}
        self._odd: dict[str, list[int]] = {}
        self._is_korean = False

    @abstractmethod
    def row(self, record: Record, with_documents: bool) -> SourceRow:
        """Makes a row of a record.

        Raises:
            ValueProblem: The record has no question, or a value the row cannot do without is of
                no use. It is rejected with the message as the reason.
        """

    def is_row(self, value: Mapping[str, Any]) -> bool:
        """Whether an object of a JSON document is a row, and not something around rows."""
        return self.names.is_row(value)

    def check_columns(self, path: str, form: Form) -> None:
        """Raises `DataError` where the columns of a file are not those of this class."""
        self.names.require(path, form.columns, str(form))

    def files(self) -> Iterator[str]:
        """The files to read, in order."""
        yield self.path

    def open_form(self, path: str) -> Form:
        """Opens one of the files."""
        return find_form(path, self.is_row)

    def records(self, path: str, form: Form, with_documents: bool) -> Iterator[Record]:
        """The records of one of the files."""
        return read_records(path, form, self.is_row, self.reject)

    def frames(
        self, path: str, form: Form, batch_size: int, with_documents: bool
    ) -> Iterator[NumberedFrame]:
        """The rows of one of the files in frames of at most `batch_size`."""
        records = self.records(path, form, with_documents)
        rows = self.rows_of(path, records, with_documents)
        return in_frames(rows, batch_size, MAX_BATCH_BYTES)

    def lose(self, line: int, reason: str) -> None:
        """Takes note of a field that is left out of a row which is kept."""
        if reason not in self._lost and len(self._lost) >= _LOSSES_APART:
            reason = "other fields"
        self._lost.setdefault(reason, [line, 0])[1] += 1

    def notice(self, line: int, what: str) -> None:
        """Takes note of a value that may mean something else than what it is taken for."""
        self._odd.setdefault(what, [line, 0])[1] += 1

    @property
    def notices(self) -> list[str]:
        """See `BaseDataset.notices`."""
        lost = [
            f"{reason}: left out of {counted(count, 'row')}, which "
            f"{'are' if count > 1 else 'is'} kept (first at line {line})"
            for reason, (line, count) in self._lost.items()
        ]
        odd = [
            f"{what} in {counted(count, 'row')} (first at line {line})"
            for what, (line, count) in self._odd.items()
        ]
        return lost + odd + [_KOREAN] * self._is_korean

    def scan(
        self, batch_size: int = BATCH_ROWS, *, with_documents: bool = True
    ) -> Iterator[pl.DataFrame]:
        """See `BaseDataset.scan`.

        A row without a question, or with the question_id of an earlier row, is rejected. A row
        without a usable answer is kept, with an empty list.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._first_rejected, self._n_rejected, self._lost, self._odd = [], 0, {}, {}
        self._is_korean = False
        seen = SeenIds()
        usable = 0
        for path in self.files():
            for numbered in self._frames(path, batch_size, with_documents):
                frame = self._admit(numbered, seen)
                if frame.height:
                    if not usable:
                        share = frame["answers"].list.first().str.contains(HANGUL).mean()
                        self._is_korean = isinstance(share, float) and share > _MOSTLY
                    usable += frame.height
                    yield frame
        if not usable:
            raise DataError(self._nothing_usable())

    def reject(self, row: RejectedRow) -> None:
        """Reports a row that is left out, and keeps the first reasons for the final error."""
        self._n_rejected += 1
        # In the order of the file: a line that is no JSON is found before the rows around it are.
        first = sorted([*self._first_rejected, row], key=lambda one: (one.path, one.line))
        self._first_rejected = first[:_REASONS_SHOWN]
        super().reject(row)

    def _frames(self, path: str, batch_size: int, with_documents: bool) -> Iterator[NumberedFrame]:
        form = self.open_form(path)
        table = None if self._mapped else form.table
        if table is not None and is_canonical(table.collect_schema()):
            yield from _canonical_frames(path, table, batch_size, with_documents)
            return
        self.check_columns(path, form)
        yield from self.frames(path, form, batch_size, with_documents)

    def rows_of(
        self, path: str, records: Iterable[Record], with_documents: bool
    ) -> Iterator[SourceRow]:
        """The rows of records; a record of no use is rejected."""
        for record in records:
            try:
                row = self.row(record, with_documents)
            except (ValueProblem, RecursionError) as problem:
                deep = isinstance(problem, RecursionError)
                reason = "values nested too deeply" if deep else str(problem)
                asked = self.names.find(record.value).value(record.value, "question")
                self.reject(record.place.rejected(path, reason, str(asked or "")))
            else:
                row.path = path
                yield row

    def _admit(self, numbered: NumberedFrame, seen: SeenIds) -> pl.DataFrame:
        frame = numbered.frame
        asked = (frame["question"].str.strip_chars() != "").fill_null(value=False)
        ids = frame["question_id"].set(~asked, None)
        repeated = seen.add(ids)
        if any(numbered.other_ids):
            frame, repeated = _renamed(frame, asked, repeated, numbered.other_ids, seen)
        admitted = asked & ~repeated
        if admitted.all():
            return frame
        for at in (~admitted).arg_true():
            name, question = ids[at], frame["question"][at] or ""
            reason = "the question is empty"
            if name is not None:
                reason = f"{DUPLICATE} {name!r}: an earlier row has it"
            self.reject(numbered.places[at].rejected(numbered.path, reason, question))
        return frame.filter(admitted)

    def _nothing_usable(self) -> str:
        if not self._n_rejected:
            return f"{self.path} holds no rows. Fetch or convert it again."
        reasons = "; ".join(f"line {row.line}: {row.reason}" for row in self._first_rejected)
        more = self._n_rejected - len(self._first_rejected)
        fix = "Check that the file is what --dataset says."
        if "not UTF-8" in reasons:
            fix = f"Convert it with: iconv -f ENCODING -t UTF-8 {str(self.path)!r} > converted"
        return (
            f"{self.path} holds no usable row: all {self._n_rejected:,} were rejected "
            f"({reasons}{f'; and {more:,} more' if more else ''}). {fix}"
        )


def require_columns(path: str, form: Form, *needed: tuple[str, ...]) -> None:
    """Raises `DataError` when none of the alternatives of a needed column is in the file."""
    if not form.columns and form.name == "jsonl":
        return  # the first rows are damaged; the scan rejects each with its reason
    missing = [names for names in needed if not set(names) & set(form.columns)]
    if missing:
        words = ", ".join(" or ".join(map(repr, names)) for names in missing)
        raise DataError(
            f"{path} has no column {words}. Found: {form}. "
            "Check the file, or name its kind with dataset.kind=..."
        )


def _canonical_frames(
    path: str, table: pl.LazyFrame, batch_size: int, with_documents: bool
) -> Iterator[NumberedFrame]:
    """Yields the rows of a table that has `CANONICAL_SCHEMA`; line n is its nth row."""
    at = 1
    for frame in table_batches(path, canonical_table(table, with_documents), batch_size):
        yield NumberedFrame(frame, [Place(at + n) for n in range(frame.height)], path)
        at += frame.height


def _renamed(
    frame: pl.DataFrame,
    asked: pl.Series,
    repeated: pl.Series,
    other_ids: Sequence[str],
    seen: SeenIds,
) -> tuple[pl.DataFrame, pl.Series]:
    """Gives rows whose id an earlier row has their other one, and says which are still repeated.

    The other ids of all rows are remembered, so that a row that stands twice is found out.
    """
    others = pl.Series("question_id", [name or None for name in other_ids], dtype=pl.String)
    others = others.set(~asked, None)
    known = seen.add(others)
    renamed = repeated & others.is_not_null() & ~known
    if not renamed.any():
        return frame, repeated
    names = others.zip_with(renamed, frame["question_id"])
    return frame.with_columns(names), repeated & ~renamed

"""SimpleQA with documents, raw and converted."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_vllm.datasets.file_dataset import FileDataset, NumberedFrame, SourceRow, in_frames
from slm_vllm.datasets.identity import content_id
from slm_vllm.datasets.pages.html import clean_text, has_tags
from slm_vllm.datasets.reading.columnar import canonical_frames
from slm_vllm.datasets.reading.delimited import csv_rows
from slm_vllm.datasets.reading.json_documents import JsonRow, array_rows, decode_lines
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES, line_batches
from slm_vllm.datasets.reading.records import SECTIONS, Layout, find_layout, require_columns
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.datasets.rows.values import (
    ValueProblem,
    documents_of,
    first_of,
    mapping_of,
    text_of,
    texts_of,
    unique,
)
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.types import RejectedRow

_QUESTION = ("problem", "question")
_ANSWER = ("answer", "answers")
_LITERAL_ERRORS = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


class SimpleQaDataset(FileDataset):
    """SimpleQA: `simple_qa_test_set_with_documents.csv` or a converted JSON or Parquet file.

    Each document of a row is one of its contexts too. The question_id is a hash of the question,
    so that it does not depend on the order of the rows.

    Args:
        path: The file.
        on_reject: See `BaseDataset`.
        split: "train" or "eval" of a `simple_qa_converted.json`; None reads both.
    """

    kind = "simple_qa"

    def __init__(
        self,
        path: str | Path,
        *,
        on_reject: Callable[[RejectedRow], None] | None = None,
        split: str | None = None,
    ) -> None:
        super().__init__(path, on_reject=on_reject)
        if split is not None and split not in SECTIONS:
            raise ConfigError(f"simple_qa has the splits {' and '.join(SECTIONS)}, not {split!r}")
        self.split = split

    def frames(self, batch_size: int, with_documents: bool) -> Iterator[NumberedFrame]:
        """See `FileDataset.frames`."""
        layout = find_layout(self.path)
        if self.split is not None and not layout.sectioned:
            raise DataError(
                f"{self.path} is not divided into splits. Leave dataset.split out, or give "
                f"simple_qa_converted.json or simple_qa_{self.split}.json."
            )
        if layout.form == "parquet":
            yield from canonical_frames(self.path, layout, batch_size, with_documents)
            return
        require_columns(self.path, layout, _QUESTION, _ANSWER)
        yield from in_frames(self._rows(layout, with_documents), batch_size, MAX_BATCH_BYTES)

    def _rows(self, layout: Layout, with_documents: bool) -> Iterator[SourceRow]:
        for row in self._objects(layout):
            try:
                yield _row(row, with_documents)
            except ValueProblem as problem:
                excerpt = str(first_of(row.value, _QUESTION) or "")[:EXCERPT_CHARACTERS]
                self.reject(RejectedRow(self.path, row.line, str(problem), excerpt))

    def _objects(self, layout: Layout) -> Iterator[JsonRow]:
        if layout.form == "csv":
            yield from csv_rows(self.path, self.reject)
        elif layout.form == "json":
            rows = array_rows(self.path, self.reject, SECTIONS)
            yield from (row for row in rows if self.split in (None, row.section))
        else:
            for batch in line_batches(self.path, self.reject):
                yield from decode_lines(self.path, batch, self.reject)


def _row(row: JsonRow, with_documents: bool) -> SourceRow:
    value = row.value
    question = text_of(first_of(value, _QUESTION), "problem")
    documents = documents_of(_documents(value.get("documents")))
    for document in documents:
        if has_tags(document["text"]):
            document["text"] = clean_text(document["text"])
    name = first_of(value, ("id", "question_id"))
    return SourceRow(
        line=row.line,
        question_id=text_of(name, "id") or content_id("simpleqa", question.strip()),
        question=question,
        answers=texts_of(first_of(value, _ANSWER), "answer"),
        contexts=unique(document["text"] for document in documents),
        documents=documents if with_documents else [],
        metadata=_metadata(value),
    )


def _documents(value: Any) -> Any:
    """Reads a list written as a Python literal; other text is one document."""
    if not isinstance(value, str) or not value.strip().startswith("["):
        return value
    try:
        literal = ast.literal_eval(value.strip())
    except _LITERAL_ERRORS:
        return value
    return literal if isinstance(literal, list) else value


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Reads the metadata, and what other converters put beside it."""
    metadata = _literal_metadata(value.get("metadata"))
    for key in ("topic", "answer_type", "urls"):
        if key in value and key not in metadata:
            metadata[key] = value[key]
    return metadata


def _literal_metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        return mapping_of(value, "metadata")
    if not value.strip():
        return {}
    for parse in (ast.literal_eval, json.loads):
        try:
            parsed = parse(value.strip())
        except _LITERAL_ERRORS:
            continue
        if isinstance(parsed, dict):
            return parsed
    raise ValueProblem("'metadata' is neither a Python nor a JSON object")

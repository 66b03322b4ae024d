"""Question-answer pairs, one JSON object a line: the layout to bring data of one's own in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slm_vllm.datasets.file_dataset import FileDataset, NumberedFrame, SourceRow, in_frames
from slm_vllm.datasets.identity import content_id
from slm_vllm.datasets.reading.columnar import canonical_frames
from slm_vllm.datasets.reading.delimited import csv_rows
from slm_vllm.datasets.reading.json_documents import JsonRow, array_rows, decode_lines
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES, line_batches
from slm_vllm.datasets.reading.records import Layout, find_layout, require_columns
from slm_vllm.datasets.rejects import EXCERPT_CHARACTERS
from slm_vllm.datasets.rows.values import (
    ValueProblem,
    check_documents,
    documents_of,
    first_of,
    mapping_of,
    require_key,
    text_of,
    texts_of,
)
from slm_vllm.types import RejectedRow

_ANSWER = ("answer", "answers")
_CONTEXT = ("contexts", "context")
_KNOWN = frozenset(("question_id", "question", "documents", "metadata", *_ANSWER, *_CONTEXT))


class QaPairsDataset(FileDataset):
    """`qa_pairs.jsonl`, the same as a JSON array or CSV, or Parquet with the canonical columns.

    Keys: `question`, `answer` or `answers` (string or list); optional `question_id`, `contexts` or
    `context`, `documents`, `metadata`. Other keys are kept in the metadata.
    """

    kind = "qa_pairs"

    def frames(self, batch_size: int, with_documents: bool) -> Iterator[NumberedFrame]:
        """See `FileDataset.frames`."""
        layout = find_layout(self.path)
        if layout.form == "parquet":
            yield from canonical_frames(self.path, layout, batch_size, with_documents)
            return
        require_columns(self.path, layout, ("question",), _ANSWER)
        yield from in_frames(self._rows(layout, with_documents), batch_size, MAX_BATCH_BYTES)

    def _rows(self, layout: Layout, with_documents: bool) -> Iterator[SourceRow]:
        for row in self._objects(layout):
            try:
                yield pair_row(row.line, row.value, with_documents=with_documents)
            except ValueProblem as problem:
                excerpt = str(row.value.get("question") or "")[:EXCERPT_CHARACTERS]
                self.reject(RejectedRow(self.path, row.line, str(problem), excerpt))

    def _objects(self, layout: Layout) -> Iterator[JsonRow]:
        if layout.form == "csv":
            yield from csv_rows(self.path, self.reject)
        elif layout.form == "json":
            yield from array_rows(self.path, self.reject, ("data", "train", "eval"))
        else:
            for batch in line_batches(self.path, self.reject):
                yield from decode_lines(self.path, batch, self.reject)


def pair_row(
    line: int,
    value: Mapping[str, Any],
    id_prefix: str = "qa",
    *,
    with_documents: bool = True,
) -> SourceRow:
    """Makes a row of an object with the keys of `QaPairsDataset`.

    Raises:
        ValueProblem: The question or answer is missing, or a value has a type of no use.
    """
    require_key(value, ("question",))
    require_key(value, _ANSWER)
    question = text_of(value["question"], "question")
    metadata = mapping_of(value.get("metadata"), "metadata")
    metadata |= {key: kept for key, kept in value.items() if key not in _KNOWN}
    name = text_of(value.get("question_id"), "question_id")
    documents = value.get("documents")
    if not with_documents:
        check_documents(documents)
    return SourceRow(
        line=line,
        question_id=name or content_id(id_prefix, question.strip()),
        question=question,
        answers=texts_of(first_of(value, _ANSWER), "answer"),
        contexts=texts_of(first_of(value, _CONTEXT), "contexts"),
        documents=documents_of(documents) if with_documents else [],
        metadata=metadata,
    )

"""SimpleQA with documents, raw and converted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm_vllm.datasets.file_dataset import FileDataset, SourceRow, require_columns
from slm_vllm.datasets.identity import content_id
from slm_vllm.datasets.pages.html import clean_text, has_tags
from slm_vllm.datasets.reading.record import Record
from slm_vllm.datasets.reading.records import Form
from slm_vllm.datasets.rows.evidence import paragraphs_of
from slm_vllm.datasets.rows.values import (
    answers_of,
    first_of,
    mapping_of,
    text_of,
    unique,
    usable,
)
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.types import RejectedRow

SECTIONS = ("train", "eval")
_QUESTION = ("problem", "question")
_ANSWER = ("answer", "answers")


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

    def check_columns(self, path: str, form: Form) -> None:
        """See `FileDataset.check_columns`."""
        if self.split is not None and not form.sections:
            raise DataError(
                f"{path} is not divided into splits. Leave dataset.split out, or give "
                f"simple_qa_converted.json or simple_qa_{self.split}.json."
            )
        require_columns(path, form, _QUESTION, _ANSWER)

    def records(self, path: str, form: Form, with_documents: bool) -> Iterator[Record]:
        """See `FileDataset.records`."""
        for record in super().records(path, form, with_documents):
            if self.split in (None, record.section):
                yield record

    def row(self, record: Record, with_documents: bool) -> SourceRow:
        """See `FileDataset.row`."""
        value = record.value

        def lose(reason: str) -> None:
            self.lose(record.place.line, reason)

        question = text_of(first_of(value, _QUESTION), "problem")
        documents = [
            replace(paragraph, text=clean_text(paragraph.text))
            if has_tags(paragraph.text)
            else paragraph
            for paragraph in paragraphs_of(value.get("documents"), "documents", lose)
        ]
        contexts = unique(document.text for document in documents)
        name = text_of(first_of(value, ("id", "question_id")), "id")
        return SourceRow(
            place=record.place,
            question_id=name or content_id("simpleqa", question.strip()),
            question=question,
            answers=usable(answers_of, first_of(value, _ANSWER), "answer", lose) or [],
            contexts=contexts,
            documents=[document.document for document in documents] if with_documents else [],
            metadata=_metadata(value, lose),
            other_id="" if name else content_id("simpleqa", question.strip(), *contexts),
        )


def _metadata(value: dict[str, Any], lose: Callable[[str], None]) -> dict[str, Any]:
    """Reads the metadata, and what other converters put beside it."""
    metadata = usable(mapping_of, value.get("metadata"), "metadata", lose) or {}
    for key in ("topic", "answer_type", "urls"):
        if key in value and key not in metadata:
            metadata[key] = value[key]
    return metadata

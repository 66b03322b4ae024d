"""Question-answer pairs: the layouts of public files, and data of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from glob import glob
from typing import Any, ClassVar

from slm_vllm.datasets.file_dataset import FileDataset, SourceRow
from slm_vllm.datasets.identity import content_id
from slm_vllm.datasets.reading.record import Record
from slm_vllm.datasets.reading.records import Form, read_records
from slm_vllm.datasets.rows.evidence import Paragraph, paragraphs_of, supporting_titles
from slm_vllm.datasets.rows.fields import FoundFields, reach
from slm_vllm.datasets.rows.values import (
    Document,
    ValueProblem,
    answers_of,
    mapping_of,
    text_of,
    unique,
    usable,
)
from slm_vllm.errors import DataError

_DOCUMENTS = "documents"


class QaPairsDataset(FileDataset):
    """Questions with answers, and with contexts and documents where the file has them.

    The columns are found by the names that public files give them, see `rows.fields`, or as
    `columns` maps them. Columns that hold no field are kept in the metadata. A field whose value
    is of no use is left out of its row; only a row without a question is rejected.
    """

    kind = "qa_pairs"
    id_prefix: ClassVar[str] = "qa"
    _plain_numbers = False

    def files(self) -> Iterator[str]:
        """See `FileDataset.files`; a path with `*` stands for all files that match it."""
        if "*" not in self.path:
            yield self.path
            return
        matching = sorted(glob(self.path, recursive=True))
        if not matching:
            raise DataError(f"{self.path}: no file matches. Check the path.")
        yield from matching

    def records(self, path: str, form: Form, with_documents: bool) -> Iterator[Record]:
        """See `FileDataset.records`; of a table only the columns of use are read."""
        columns = None
        if form.table is not None:
            kept = form.columns if self.names.kept is None else self.names.kept
            columns = self.names.find(form.columns).columns | {name.split(".")[0] for name in kept}
            if not with_documents:
                columns -= {_DOCUMENTS}
        self._plain_numbers = form.name == "csv"
        return read_records(path, form, self.is_row, self.reject, columns)

    def row(self, record: Record, with_documents: bool) -> SourceRow:
        """See `FileDataset.row`."""
        fields = _Fields(self.names.find(record.value), record, self.lose)
        if not fields.found.has("question"):
            raise ValueProblem("key 'question' is missing")
        contexts, documents = fields.evidence(with_documents)
        row = SourceRow(
            place=record.place,
            question_id="",
            question=fields.question(),
            answers=fields.answers(self._plain_numbers),
            contexts=contexts,
            documents=documents,
            metadata=fields.metadata(self.names.kept),
        )
        self._identify(row, fields)
        return row

    def _identify(self, row: SourceRow, fields: _Fields) -> None:
        """Names a row by its own id, or by its question and, where that comes again, contexts."""
        name, column = fields.own_id()
        question = row.question.strip()
        row.question_id = name or content_id(self.id_prefix, question)
        if not name and row.contexts:
            row.other_id = content_id(self.id_prefix, question, *row.contexts)
        elif name and column != "question_id":
            # An `id` may be that of the text that several rows ask about.
            row.other_id = content_id(self.id_prefix, name, question, *row.contexts)


class _Fields:
    """The fields of one record, each as the canonical row has it."""

    def __init__(
        self, found: FoundFields, record: Record, lose: Callable[[int, str], None]
    ) -> None:
        self.found = found
        self._value = record.value
        self._line = record.place.line
        self._lose_at = lose

    def question(self) -> str:
        value = self.found.value(self._value, "question")
        if isinstance(value, Mapping) and isinstance(value.get("text"), str):
            value = value["text"]  # Natural Questions on the Hugging Face hub
        return text_of(value, "question")

    def own_id(self) -> tuple[str, str]:
        """The row's id and the column it stands in; "" where it has none."""
        for column, value in self._values("question_id"):
            name = usable(text_of, value, column, self._lose) or ""
            if name:
                return name, column
        return "", ""

    def answers(self, plain_numbers: bool) -> list[str]:
        answers: list[str] = []
        read = partial(answers_of, plain_numbers=plain_numbers)
        for column, value in self._values("answers"):
            answers = usable(read, value, column, self._lose) or []
            if answers:
                break
        for column, value in self._values("more_answers"):
            answers = unique([*answers, *(usable(read, value, column, self._lose) or [])])
        return answers

    def evidence(self, with_documents: bool) -> tuple[list[str], list[Document]]:
        """The gold contexts, and the documents."""
        if not self.found.has("contexts", "gold", "documents"):
            return [], []
        contexts: list[Paragraph] = []
        for column, value in self._values("contexts"):
            contexts = paragraphs_of(value, column, self._lose)
            if contexts:
                break
        positive = self._paragraphs("gold")
        marked: list[Paragraph] = []
        searched: list[Paragraph] = []
        for column, value in self._values("documents"):
            if column == _DOCUMENTS and not with_documents:
                continue
            paragraphs = paragraphs_of(value, column, self._lose)
            searched += paragraphs
            if column != _DOCUMENTS:
                marked += [paragraph for paragraph in paragraphs if paragraph.gold]
        gold = [*self._gold(contexts), *positive]
        texts = [paragraph.context for paragraph in gold or marked]
        if not with_documents:
            return texts, []
        documents = [*positive, *searched] or self._pages(contexts)
        if len(documents) > len(searched):
            documents = list(dict.fromkeys(documents))
        return texts, [paragraph.document for paragraph in documents]

    def metadata(self, kept: Sequence[str] | None) -> dict[str, Any]:
        if kept is not None:
            return {name: reach(self._value, name) for name in kept}
        if not self.found.has("metadata"):
            return {key: self._value[key] for key in self.found.others}
        value = self.found.value(self._value, "metadata")
        try:
            metadata = mapping_of(value, "metadata")
        except ValueProblem:
            metadata = {"metadata": value}
        return metadata | {key: self._value[key] for key in self.found.others}

    def _gold(self, contexts: list[Paragraph]) -> list[Paragraph]:
        """Those contexts that the file marks as gold; all where it marks none."""
        titles = supporting_titles(self.found.value(self._value, "facts"))
        gold = [paragraph for paragraph in contexts if paragraph.gold or paragraph.title in titles]
        return gold or contexts

    def _pages(self, contexts: list[Paragraph]) -> list[Paragraph]:
        """Contexts that can be searched: those of which the page is known."""
        title = self.found.value(self._value, "page")
        page = title if isinstance(title, str) else ""
        return [
            paragraph if paragraph.title else replace(paragraph, title=page)
            for paragraph in contexts
            if paragraph.title or page
        ]

    def _paragraphs(self, field: str) -> list[Paragraph]:
        return [
            paragraph
            for column, value in self._values(field)
            for paragraph in paragraphs_of(value, column, self._lose)
        ]

    def _values(self, field: str) -> list[tuple[str, Any]]:
        return self.found.values(self._value, field)

    def _lose(self, reason: str) -> None:
        self._lose_at(self._line, reason)

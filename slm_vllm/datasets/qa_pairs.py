"""Question-answer pairs in the layouts of public files, and users' own data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from glob import glob
from typing import Any, ClassVar

from slm_vllm.datasets.batches import batched
from slm_vllm.datasets.file_dataset import FileDataset, SourceRow
from slm_vllm.datasets.frames import NumberedFrame, to_frame
from slm_vllm.datasets.plain_lines import PlainLines
from slm_vllm.datasets.plain_rows import DOCUMENTS, identify, plain_frame
from slm_vllm.datasets.reading.lines import MAX_BATCH_BYTES, line_batches
from slm_vllm.datasets.reading.record import Record
from slm_vllm.datasets.reading.records import Form, line_records, read_records
from slm_vllm.datasets.rows.evidence import Paragraph, paragraphs_of, supporting_titles
from slm_vllm.datasets.rows.fields import FoundFields
from slm_vllm.datasets.rows.values import (
    MISSING,
    Document,
    ValueProblem,
    answers_of,
    choices_of,
    chosen,
    text_of,
    unique,
    usable,
)
from slm_vllm.errors import DataError


class QaPairsDataset(FileDataset):
    """Questions with answers, and with contexts and documents where the file has them.

    The columns are found by the names that public files give them, see `rows.fields`, or as
    `columns` maps them. Columns that hold no field are kept in the metadata. A field whose value
    is of no use is left out of its row; only a row without a question is rejected.
    """

    kind = "qa_pairs"
    id_prefix: ClassVar[str] = "qa"
    _only_text = False

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
                columns -= {DOCUMENTS}
        self._only_text = form.name == "csv"
        return read_records(path, form, self.is_row, self.reject, columns)

    def frames(
        self, path: str, form: Form, batch_size: int, with_documents: bool
    ) -> Iterator[NumberedFrame]:
        """See `FileDataset.frames`."""
        if type(self).row is not QaPairsDataset.row:  # of a derived class: it says what a row is
            yield from super().frames(path, form, batch_size, with_documents)
            return
        # A derived class may have records of its own, and a file on a hub is read as a table.
        has_lines = form.name == "jsonl" and form.table is None
        if not has_lines or type(self).records is not QaPairsDataset.records:
            records = self.records(path, form, with_documents)
            yield from self._record_frames(path, records, batch_size, with_documents)
            return
        self._only_text = False
        plain = PlainLines(self.names, self.id_prefix, with_documents)
        for lines in line_batches(path, self.reject, max_rows=batch_size):
            numbered = plain.frame(path, lines)
            if numbered is not None:
                yield numbered
            else:
                records = line_records(path, lines, self.reject)
                yield from self._record_frames(path, records, batch_size, with_documents)

    def row(self, record: Record, with_documents: bool) -> SourceRow:
        """See `FileDataset.row`."""
        fields = _Fields(self.names.find(record.value), record, self)
        if not fields.found.has("question"):
            raise ValueProblem("key 'question' is missing")
        contexts, documents = fields.evidence(with_documents)
        row = SourceRow(
            place=record.place,
            question_id="",
            question=fields.question(),
            answers=fields.answers(self._only_text),
            contexts=contexts,
            documents=documents,
            metadata=fields.found.metadata(record.value, self.names.kept),
        )
        row.question_id, row.other_id = identify(
            self.id_prefix, *fields.own_id(), row.question, contexts
        )
        return row

    def _record_frames(
        self, path: str, records: Iterator[Record], batch_size: int, with_documents: bool
    ) -> Iterator[NumberedFrame]:
        for batch in batched(records, _characters_of, MAX_BATCH_BYTES, batch_size):
            numbered = self._numbered(path, batch, with_documents)
            if numbered is not None:
                yield numbered

    def _numbered(
        self, path: str, records: Sequence[Record], with_documents: bool
    ) -> NumberedFrame | None:
        """The rows of records in one frame: by the column where all are plain, else by `row`."""
        plain = plain_frame(path, records, self.names, self.id_prefix, with_documents)
        if plain is not None:
            return plain
        rows = list(self.rows_of(path, records, with_documents))
        return to_frame(rows) if rows else None


class _Fields:
    """The fields of one record, each as the canonical row has it."""

    def __init__(self, found: FoundFields, record: Record, dataset: QaPairsDataset) -> None:
        self.found = found
        self._value = record.value
        self._line = record.place.line
        self._lose = partial(dataset.lose, self._line)
        self._notice = partial(dataset.notice, self._line)

    def question(self) -> str:
        value = self.found.value(self._value, "question")
        if isinstance(value, Mapping) and isinstance(value.get("text"), str):
            value = value["text"]  # Natural Questions on the Hugging Face hub
        return text_of(value, "question")

    def own_id(self) -> tuple[str, str]:
        """The row's id and the column it stands in; "" where it has none."""
        for column, value in self._values("question_id"):
            if isinstance(value, Mapping) and "$oid" in value:  # MongoDB
                value = value["$oid"]
            name = usable(text_of, value, column, self._lose) or ""
            if name:
                return name, column
        return "", ""

    def answers(self, only_text: bool) -> list[str]:
        answers: list[str] = []
        read = partial(answers_of, only_text=only_text)
        choices = choices_of(self.found.value(self._value, "choices"))
        for column, value in self._values("answers"):
            answers = usable(read, chosen(value, choices, self._notice), column, self._lose) or []
            if isinstance(value, bool):
                self._notice(f"the answer is {str(value).lower()}, and yes or no are no such words")
            elif isinstance(value, str) and value.strip() in MISSING:
                self._notice(
                    f"the answer is the word {value.strip()!r}, which pandas writes where there is "
                    "none,"
                )
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
            if column == DOCUMENTS and not with_documents:
                continue
            paragraphs = paragraphs_of(value, column, self._lose)
            searched += paragraphs
            if column != DOCUMENTS:
                marked += [paragraph for paragraph in paragraphs if paragraph.gold]
        gold = [*self._gold(contexts), *positive]
        texts = [paragraph.context for paragraph in gold or marked]
        if not with_documents:
            return texts, []
        documents = [*positive, *searched] or self._pages(contexts)
        if len(documents) > len(searched):
            documents = list(dict.fromkeys(documents))
        return texts, [paragraph.document for paragraph in documents]

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


def _characters_of(record: Record) -> int:
    return _characters(record.value)


def _characters(value: list[Any] | dict[str, Any], deep: int = 6) -> int:
    """About how long the texts of a record are."""
    size = 0
    for item in value.values() if isinstance(value, dict) else value:
        kind = type(item)
        if kind is str:
            size += len(item)
        elif deep and kind in (list, dict):
            size += _characters(item, deep - 1)
    return size

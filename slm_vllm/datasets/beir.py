"""BEIR folders: queries, relevance judgements and a corpus."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.corpus_file import CorpusFile
from slm_vllm.datasets.file_dataset import SourceRow
from slm_vllm.datasets.qa_pairs import QaPairsDataset
from slm_vllm.datasets.qrels import read_qrels
from slm_vllm.datasets.reading.record import Record
from slm_vllm.datasets.reading.records import Form
from slm_vllm.datasets.rows.evidence import Paragraph
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

_FIELDS = {"question": "text", "question_id": "_id"}


class BeirDataset(QaPairsDataset):
    """A folder with `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`, packed or not.

    Rows are the queries that the split judges. Documents with a score above 0 are a row's contexts
    and its own documents; a retriever searches the whole corpus. There are no answers, so all rows
    are unscored unless `columns` names where they are.

    Args:
        path: The folder.
        on_reject: See `BaseDataset`.
        columns: See `FieldNames`.
        split: Which file of `qrels`; None takes test, or the only one there is.
    """

    kind = "beir"

    def __init__(
        self,
        path: str | Path,
        *,
        on_reject: Callable[[RejectedRow], None] | None = None,
        columns: Mapping[str, Any] | None = None,
        split: str | None = None,
    ) -> None:
        super().__init__(path, on_reject=on_reject, columns={**_FIELDS, **(columns or {})})
        self._split = split
        self._gold: dict[str, list[str]] = {}
        self._texts: dict[str, Paragraph] = {}

    def files(self) -> Iterator[str]:
        """See `FileDataset.files`."""
        if not self._gold:
            self._gold = {
                question: [name for name, grade in grades.items() if grade > 0]
                for question, grades in self.qrels().items()
            }
            wanted = {name for names in self._gold.values() for name in names}
            self._texts = {
                text.name: text for text in self._corpus().paragraphs() if text.name in wanted
            }
        yield str(find_part(Path(self.path), "queries"))

    def records(self, path: str, form: Form, with_documents: bool) -> Iterator[Record]:
        """See `FileDataset.records`."""
        for record in super().records(path, form, with_documents):
            if str(record.value.get("_id")) in self._gold:
                yield record

    def row(self, record: Record, with_documents: bool) -> SourceRow:
        """See `FileDataset.row`."""
        row = super().row(record, with_documents)
        names = self._gold[row.question_id]
        found = [self._texts[name] for name in names if name in self._texts]
        if len(found) < len(names):
            self.lose(record.place.line, "a judged document is not in the corpus")
        row.contexts = [paragraph.context for paragraph in found]
        row.documents = [paragraph.document for paragraph in found] if with_documents else []
        return row

    def corpus(self) -> Iterator[pl.DataFrame]:
        """See `BaseDataset.corpus`."""
        return self._corpus().documents()

    def _corpus(self) -> CorpusFile:
        return CorpusFile(find_part(Path(self.path), "corpus"), on_reject=self.reject)

    def qrels(self) -> dict[str, dict[str, int]]:
        """See `BaseDataset.qrels`."""
        return read_qrels(self._qrels_file())

    def _qrels_file(self) -> str:
        folder = Path(self.path) / "qrels"
        found = {path.name.split(".")[0]: path for path in sorted(folder.glob("*.tsv*"))}
        split = self._split or ("test" if "test" in found or len(found) != 1 else next(iter(found)))
        if split not in found:
            raise DataError(
                f"{folder} has no {split}.tsv; it has {', '.join(found) or 'nothing'}. "
                "Choose with dataset.split=..."
            )
        return str(found[split])


def find_part(folder: Path, part: str) -> Path:
    """The file "corpus" or "queries" of a folder, packed or not.

    Raises:
        DataError: There is none.
    """
    found = sorted(folder.glob(f"{part}.jsonl*"))
    if not found:
        raise DataError(
            f"{folder} has no {part}.jsonl. A BEIR folder has corpus.jsonl, queries.jsonl, qrels/"
        )
    return found[0]


def is_beir(path: str) -> bool:
    """Whether a path is a folder in BEIR's layout."""
    folder = Path(path)
    return os.path.isdir(path) and all(
        any(folder.glob(f"{part}.jsonl*")) for part in ("corpus", "queries")
    )

"""The fast path for plain records: what `QaPairsDataset.row` does, a column at a time.

Most files hold texts and lists of texts under known names. Some records of which one holds anything
else are left to `row`, the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any, NamedTuple

from slm_vllm.datasets.frames import NumberedFrame, canonical_frame, encoded
from slm_vllm.datasets.identity import content_id
from slm_vllm.datasets.reading.record import Record
from slm_vllm.datasets.rows.fields import FieldNames, FoundFields
from slm_vllm.datasets.rows.literals import MORE_THAN_TEXT
from slm_vllm.datasets.rows.values import Document

DOCUMENTS = "documents"

_more_than_text = re.compile(MORE_THAN_TEXT).match


class Layout(NamedTuple):
    """The one column of each field, where records have no field in two columns or below one."""

    question: str
    question_id: str | None
    answers: str | None
    contexts: str | None

    def holds(self, other: Layout) -> bool:
        """Whether records of another layout are of this one, with a field or more missing."""
        return all(theirs in (None, ours) for ours, theirs in zip(self, other, strict=True))


def plain_layout(found: FoundFields, with_documents: bool) -> Layout | None:
    """The layout of records with certain columns; None where not all can be told by the column."""
    columns: dict[str, str | None] = {}
    for field in ("question", "question_id", "answers", "contexts"):
        ways = found.paths[field]
        if len(ways) > 1 or any(len(way) > 1 for way in ways):
            return None
        columns[field] = ways[0][0] if ways else None
    searched = found.paths["documents"]
    if found.has("more_answers", "gold", "choices") or (
        searched and (with_documents or searched != ((DOCUMENTS,),))
    ):
        return None
    if with_documents and found.has("contexts") and found.has("page"):
        return None  # its contexts are documents too
    question = columns.pop("question")
    return None if question is None else Layout(question, **columns)


def identify(
    prefix: str, name: str, column: str | None, question: str, contexts: Sequence[str]
) -> tuple[str, str]:
    """Names a row by its own id, or by its question and, where that comes again, contexts.

    Args:
        prefix: What an id that is made begins with.
        name: The row's own id, "" where it has none.
        column: Where that stands.
        question: The question.
        contexts: The gold contexts.

    Returns:
        The name of the row, and its name where an earlier row has that one (see `SourceRow`).
    """
    question = question.strip()
    if name:
        # An `id` may be that of the text that several rows ask about.
        alone = column == "question_id"
        return name, "" if alone else content_id(prefix, name, question, *contexts)
    other = content_id(prefix, question, *contexts) if contexts else ""
    return content_id(prefix, question), other


def plain_frame(
    path: str, records: Sequence[Record], names: FieldNames, prefix: str, with_documents: bool
) -> NumberedFrame | None:
    """The rows of some records; None where one of them is to be looked at by itself.

    Args:
        path: Their file.
        records: At least one.
        names: Finds the fields by the names of their columns.
        prefix: What an id that is made begins with.
        with_documents: Whether documents are asked for.
    """
    values = [record.value for record in records]
    found = [names.find(value) for value in values]
    distinct = list({id(one): one for one in found}.values())
    layout = _common_layout(distinct, with_documents)
    if layout is None:
        return None
    questions = _texts([value.get(layout.question) for value in values])
    own_ids = _own_ids(values, layout.question_id)
    answers = _lists(values, layout.answers)
    contexts = _lists(values, layout.contexts)
    if questions is None or own_ids is None or answers is None or contexts is None:
        return None
    others: list[str] = []
    if layout.question_id != "question_id" or not all(own_ids):
        identified = [
            identify(prefix, own, layout.question_id, question, texts)
            for own, question, texts in zip(own_ids, questions, contexts, strict=True)
        ]
        own_ids, others = map(list, zip(*identified, strict=True))
    metadata = ["{}"] * len(values)
    if names.kept is not None or any(one.others or one.has("metadata") for one in distinct):
        metadata = [
            encoded(one.metadata(value, names.kept))
            for one, value in zip(found, values, strict=True)
        ]
    documents: list[list[Document]] = [[]] * len(values)
    frame = canonical_frame(own_ids, questions, answers, contexts, documents, metadata)
    return NumberedFrame(frame, [record.place for record in records], path, others)


def _common_layout(found: Iterable[FoundFields], with_documents: bool) -> Layout | None:
    """The layout that holds all records; None where there is none."""
    layouts = [plain_layout(one, with_documents) for one in found]
    plain = [one for one in layouts if one is not None]
    if len(plain) < len(layouts):
        return None
    widest = max(plain, key=lambda one: sum(column is not None for column in one))
    return widest if all(map(widest.holds, plain)) else None


def _texts(values: list[Any]) -> list[str] | None:
    """Texts, "" for what is missing; None where one is something else."""
    kinds = set(map(type, values))
    if kinds <= {str}:
        return values
    return [value or "" for value in values] if kinds <= {str, NoneType} else None


def _own_ids(values: Sequence[Mapping[str, Any]], column: str | None) -> list[str] | None:
    if column is None:
        return [""] * len(values)
    found = [value.get(column) for value in values]
    return _texts([str(name) if type(name) is int else name for name in found])


def _lists(values: Sequence[Mapping[str, Any]], column: str | None) -> list[list[str]] | None:
    """Lists of texts without blank ones; a text is a list of one. None where one is neither."""
    if column is None:
        return [[]] * len(values)
    found: list[Any] = [value.get(column) for value in values]
    if set(map(type, found)) <= {list}:
        flat = list(chain.from_iterable(found))
        if set(map(type, flat)) <= {str} and all(map(str.strip, flat)):
            return found
    lists: list[list[str]] = []
    for value in found:
        if type(value) is list and set(map(type, value)) <= {str, NoneType}:
            lists.append([text for text in value if text and text.strip()])
        elif type(value) is str and not _more_than_text(value):
            lists.append([value] if value.strip() else [])
        elif value is None:
            lists.append([])
        else:
            return None
    return lists

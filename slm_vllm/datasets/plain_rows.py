"""The fast path for plain records: what `QaPairsDataset.row` does, a column at a time.

Most files hold texts and lists of texts under known names. Records with anything else are "odd" and
left to `row`, the reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import NoneType
from typing import Any

from slm_vllm.datasets.frames import Columns, encoded
from slm_vllm.datasets.identity import content_id
from slm_vllm.datasets.rows.fields import FoundFields
from slm_vllm.datasets.rows.literals import MORE_THAN_TEXT

DOCUMENTS = "documents"

_more_than_text = re.compile(MORE_THAN_TEXT).match


@dataclass(frozen=True, slots=True)
class Layout:
    """The one column of each field, where records have no field in two columns or below one."""

    question: str
    question_id: str | None
    answers: str | None
    contexts: str | None

    def holds(self, other: Layout) -> bool:
        """Whether records of another layout are of this one, with a field or more missing."""
        return (
            other.question == self.question
            and other.question_id in (None, self.question_id)
            and other.answers in (None, self.answers)
            and other.contexts in (None, self.contexts)
        )


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


def plain_columns(
    values: Sequence[Mapping[str, Any]],
    layout: Layout,
    found: Sequence[FoundFields],
    kept: Sequence[str] | None,
    prefix: str,
) -> tuple[Columns, set[int]]:
    """The fields of records of a layout.

    Args:
        values: The records.
        layout: Theirs; a key that one lacks stands for None.
        found: Where each has its fields.
        kept: The names of the metadata; None for all columns that hold no field.
        prefix: What an id that is made begins with.

    Returns:
        The fields, and the positions of records that are odd: what stands there is of no use.
    """
    odd: set[int] = set()
    questions = _texts([value.get(layout.question) for value in values], odd)
    answers = _lists(values, layout.answers, odd)
    contexts = _lists(values, layout.contexts, odd)
    names = _names(values, layout.question_id, odd)
    if layout.question_id == "question_id" and all(names):
        others = [""] * len(values)
    else:
        column = layout.question_id
        identified = [
            identify(prefix, name, column, question, texts)
            for name, question, texts in zip(names, questions, contexts, strict=True)
        ]
        names, others = map(list, zip(*identified, strict=True))
    distinct = {id(one): one for one in found}.values()
    if kept is None and not any(one.others or one.has("metadata") for one in distinct):
        metadata = ["{}"] * len(values)
    else:
        metadata = [
            encoded(one.metadata(value, kept)) for one, value in zip(found, values, strict=True)
        ]
    documents: list[list[Any]] = [[]] * len(values)
    return Columns(names, questions, answers, contexts, documents, metadata, others), odd


def _texts(values: list[Any], odd: set[int]) -> list[str]:
    """Texts, "" for what is missing."""
    kinds = set(map(type, values))
    if kinds <= {str}:
        return values
    if kinds - {str, NoneType}:
        odd.update(at for at, value in enumerate(values) if type(value) not in (str, NoneType))
    return [value if type(value) is str else "" for value in values]


def _names(values: Sequence[Mapping[str, Any]], column: str | None, odd: set[int]) -> list[str]:
    if column is None:
        return [""] * len(values)
    found = [value.get(column) for value in values]
    if int in set(map(type, found)):
        found = [str(name) if type(name) is int else name for name in found]
    return _texts(found, odd)


def _lists(
    values: Sequence[Mapping[str, Any]], column: str | None, odd: set[int]
) -> list[list[str]]:
    """Lists of texts without blank ones; a text is a list of one."""
    if column is None:
        return [[]] * len(values)
    found: list[Any] = [value.get(column) for value in values]
    if set(map(type, found)) <= {list}:
        flat = list(chain.from_iterable(found))
        if set(map(type, flat)) <= {str} and all(map(str.strip, flat)):
            return found
    lists: list[list[str]] = []
    for at, value in enumerate(found):
        if type(value) is list and set(map(type, value)) <= {str, NoneType}:
            lists.append([text for text in value if text and text.strip()])
        elif type(value) is str and not _more_than_text(value):
            lists.append([value] if value.strip() else [])
        else:
            if value is not None:
                odd.add(at)
            lists.append([])
    return lists

"""A document with its questions, and what is made of the rows of every table of facts."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo_dataset.wording import draw, mentions

FACTS_DIR = Path(__file__).resolve().parent / "facts"


Row = dict[str, str]


@dataclass(frozen=True)
class Question:
    """One question about a document.

    Attributes:
        fact: Short name of the fact asked for, part of the question id.
        text: The question.
        answers: Accepted spellings, the usual one first.
        answer_type: Kind of answer, such as ``year`` or ``person``.
        paragraph: Index of the paragraph that states the fact.
    """

    fact: str
    text: str
    answers: list[str]
    answer_type: str
    paragraph: int


@dataclass(frozen=True)
class Entry:
    """One document with its questions.

    Attributes:
        topic: Topic name, such as ``elements``.
        document_id: Stable id of the document.
        title: Title of the document.
        paragraphs: Paragraphs of the text in order.
        questions: Questions whose gold document this is.
    """

    topic: str
    document_id: str
    title: str
    paragraphs: list[str]
    questions: list[Question] = field(default_factory=list)


def read_table(name: str) -> list[Row]:
    """Read one facts table.

    Args:
        name: File stem of the table in ``scripts/demo_dataset/facts``.

    Returns:
        The rows as dictionaries of column to cell.
    """
    with (FACTS_DIR / f"{name}.tsv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


def parts(cell: str) -> list[str]:
    """Split a cell that holds several values separated by a bar."""
    return [value for value in cell.split("|") if value]


def plain_name(row: Row) -> str:
    """Return the name without a bracketed qualifier."""
    return row["name"].split(" (")[0]


def neighbours_in(rows: Sequence[Row], row: Row, column: str) -> list[Row]:
    """Return the other rows that share the value of a column with this row."""
    return [other for other in rows if other is not row and other[column] == row[column]]


def choose(own: Question, others: Sequence[Question], key: str, wanted: int) -> list[Question]:
    """Keep the question written for the row and some of the templated ones.

    Args:
        own: The question from the facts table.
        others: Questions made from templates.
        key: Seed key of the document.
        wanted: Number of templated questions to keep.

    Returns:
        The templated questions, then the row's own.
    """
    ranked = sorted(others, key=lambda question: draw(f"{key}|choose|{question.fact}", 1 << 60))
    return [*ranked[:wanted], own]


def own_question(row: Row, paragraph_index: int, answer_type: str = "entity") -> Question:
    """Build the question that the facts table spells out."""
    answers = parts(row["answers"])
    if answers[0].isdigit():
        answer_type = "year"
    return Question("detail", row["question"], answers, answer_type, paragraph_index)


def best_paragraph(row: Row, texts: Sequence[str]) -> int:
    """Return the index of the later paragraph that answers the question of the facts table.

    A paragraph that holds an answer goes before one that does not, then the one that shares more
    words with the question wins.
    """
    answers = parts(row["answers"])
    asked = set(re.findall(r"\w{4,}", row["question"].lower()))

    def fit(index: int) -> tuple[bool, int]:
        names_it = any(mentions(texts[index], answer) for answer in answers)
        shared = asked & set(re.findall(r"\w{4,}", texts[index].lower()))
        return names_it, len(shared)

    return max((1, 2), key=fit)

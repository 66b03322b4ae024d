"""Write the demo dataset from the facts tables in ``scripts/demo_dataset/facts``.

The result is deterministic: the phrasing of every sentence is chosen by a hash of a seed, the
document id and the place of the sentence, so an edit of one row leaves all other rows alone.

Usage:
    python scripts/make_demo_dataset.py [--output PATH] [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from demo_dataset.countries import country_entry
from demo_dataset.elements import element_entry
from demo_dataset.entry import Entry, Question, Row, read_table
from demo_dataset.mountains import mountain_entry
from demo_dataset.people import people_entry
from demo_dataset.planets import moon_entry, planet_entry
from demo_dataset.rivers import river_entry
from demo_dataset.wording import draw, mentions

DEFAULT_OUTPUT = (
    Path(__file__).resolve().parent.parent / "slm_vllm" / "datasets" / "data" / "demo.jsonl"
)


BUILDERS: tuple[tuple[str, Callable[[Sequence[Row], int], Entry]], ...] = (
    ("elements", element_entry),
    ("countries", country_entry),
    ("mountains", mountain_entry),
    ("rivers", river_entry),
    ("planets", planet_entry),
    ("moons", moon_entry),
    ("people", people_entry),
)


def build_entries() -> list[Entry]:
    """Build all documents with their questions in a fixed order."""
    entries = []
    for table, builder in BUILDERS:
        rows = read_table(table)
        entries += [builder(rows, index) for index in range(len(rows))]
    return entries


def gold_paragraphs(entry: Entry, question: Question) -> list[str]:
    """Return the paragraphs that state the answer.

    Where a fact paragraph calls the entity only "it", the paragraph that names it comes first.

    Raises:
        ValueError: If no accepted spelling occurs in them.
    """
    found = [entry.paragraphs[question.paragraph]]
    if not any(mentions(found[0], answer) for answer in question.answers):
        found.insert(0, entry.paragraphs[0])
    if not any(mentions(text, answer) for text in found for answer in question.answers):
        raise ValueError(f"{entry.document_id}: no answer of {question.fact!r} in its paragraph")
    return found


def question_row(entry: Entry, question: Question) -> dict[str, object]:
    """Return one line of the dataset."""
    document = {
        "document_id": entry.document_id,
        "title": entry.title,
        "text": "\n\n".join(entry.paragraphs),
    }
    return {
        "question_id": f"{entry.document_id}-{question.fact}",
        "question": question.text,
        "answer": list(dict.fromkeys(question.answers)),
        "contexts": gold_paragraphs(entry, question),
        "documents": [document],
        "metadata": {
            "topic": entry.topic,
            "answer_type": question.answer_type,
            "fact": question.fact,
        },
    }


def validate(entries: Sequence[Entry]) -> None:
    """Check what a slip in a facts table would break.

    Args:
        entries: All documents with their questions.

    Raises:
        ValueError: If a text has the wrong length, a question gives away its answer, or an id or
            a question occurs twice.
    """
    for entry in entries:
        words = len(" ".join(entry.paragraphs).split())
        if not 120 <= words <= 300:
            raise ValueError(f"{entry.document_id}: {words} words")
        for question in entry.questions:
            if any(mentions(question.text, answer) for answer in question.answers):
                raise ValueError(f"{entry.document_id}: {question.text!r} holds its answer")
    asked = [question for entry in entries for question in entry.questions]
    for what, values in (
        ("document id", [entry.document_id for entry in entries]),
        ("question", [question.text.lower() for question in asked]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise ValueError(f"{what} not unique: {twice}")


def render(entries: Sequence[Entry]) -> str:
    """Return the dataset as JSON lines, the topics mixed so that any first N rows have them all."""
    rows = [question_row(entry, question) for entry in entries for question in entry.questions]
    rows.sort(key=lambda row: draw(f"order|{row['question_id']}", 1 << 60))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dataset, or check that the shipped file is up to date.

    Args:
        argv: Command-line arguments; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Write the demo dataset from its facts tables.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="file to write")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the file differs"
    )
    arguments = parser.parse_args(argv)
    entries = build_entries()
    validate(entries)
    content = render(entries).encode("utf-8")
    if arguments.check:
        same = arguments.output.is_file() and arguments.output.read_bytes() == content
        print(f"{arguments.output}: {'up to date' if same else 'differs from the facts tables'}")
        return 0 if same else 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(content)
    count = sum(len(entry.questions) for entry in entries)
    print(f"{arguments.output}: {count} questions over {len(entries)} documents")
    return 0


if __name__ == "__main__":
    sys.exit(main())

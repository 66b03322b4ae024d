"""Tests of the shipped demo dataset; they read the file and run the script that makes it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "make_demo_dataset.py"
SHIPPED = ROOT / "slm_vllm" / "datasets" / "data" / "demo.jsonl"
KEYS = ["question_id", "question", "answer", "contexts", "documents", "metadata"]
METADATA_KEYS = ["topic", "answer_type", "fact"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Return the rows of the shipped file."""
    return [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]


def documents_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the corpus by document id."""
    return {document["document_id"]: document for row in rows for document in row["documents"]}


def has_phrase(text: str, phrase: str) -> bool:
    """Return whether a text holds a phrase as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script that makes the dataset."""
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_counts_and_size(rows: list[dict[str, Any]]) -> None:
    assert len(rows) >= 360
    assert len(documents_of(rows)) >= 180
    assert len({row["metadata"]["topic"] for row in rows}) >= 6
    assert SHIPPED.stat().st_size < 1_500_000


def test_every_row_has_the_same_keys_and_types(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert list(row) == KEYS
        assert list(row["metadata"]) == METADATA_KEYS
        assert all(isinstance(value, str) and value for value in row["metadata"].values())
        assert len(row["documents"]) == 1
        assert list(row["documents"][0]) == ["document_id", "title", "text"]
        assert all(value.strip() for value in row["documents"][0].values())


def test_question_ids_and_texts_are_unique(rows: list[dict[str, Any]]) -> None:
    for key in ("question_id", "question"):
        counts = Counter(row[key].casefold() for row in rows)
        assert [value for value, count in counts.items() if count > 1] == []


def test_questions_are_questions(rows: list[dict[str, Any]]) -> None:
    assert [row["question"] for row in rows if not row["question"].endswith("?")] == []
    assert [row["question"] for row in rows if not row["question"][0].isupper()] == []


def test_answers_are_short_and_not_empty(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["answer"], row["question_id"]
        assert all(answer == answer.strip() and answer for answer in row["answer"])
        assert len(set(row["answer"])) == len(row["answer"])
        assert len(row["answer"][0].split()) <= 11, row["question_id"]


def test_contexts_state_an_answer(rows: list[dict[str, Any]]) -> None:
    silent = [
        row["question_id"]
        for row in rows
        if not any(has_phrase("\n".join(row["contexts"]), answer) for answer in row["answer"])
    ]
    assert silent == []


def test_contexts_are_whole_paragraphs_of_the_document(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["contexts"], row["question_id"]
        paragraphs = row["documents"][0]["text"].split("\n\n")
        assert set(row["contexts"]) <= set(paragraphs), row["question_id"]


def test_document_ids_stand_for_one_document(rows: list[dict[str, Any]]) -> None:
    corpus = documents_of(rows)
    for row in rows:
        for document in row["documents"]:
            assert document == corpus[document["document_id"]]
    assert len({document["text"] for document in corpus.values()}) == len(corpus)
    assert len({document["title"] for document in corpus.values()}) == len(corpus)


def test_documents_have_the_promised_shape(rows: list[dict[str, Any]]) -> None:
    for document in documents_of(rows).values():
        assert 120 <= len(document["text"].split()) <= 300, document["document_id"]
        assert 2 <= len(document["text"].split("\n\n")) <= 4, document["document_id"]
        assert not re.search(r"[{}|#~\t]|  |\.\.| [,.;]|\ba [aeio]\w", document["text"]), document[
            "document_id"
        ]


def test_no_question_gives_away_its_answer(rows: list[dict[str, Any]]) -> None:
    leaks = [
        (row["question_id"], answer)
        for row in rows
        for answer in row["answer"]
        if has_phrase(row["question"], answer)
    ]
    assert leaks == []


def test_many_rows_accept_several_spellings(rows: list[dict[str, Any]]) -> None:
    assert sum(len(row["answer"]) > 1 for row in rows) >= 0.4 * len(rows)


def test_many_documents_name_the_entities_of_others(rows: list[dict[str, Any]]) -> None:
    corpus = documents_of(rows)
    names = {key: document["title"].split(" (")[0] for key, document in corpus.items()}
    crossing = [
        key
        for key, document in corpus.items()
        if any(has_phrase(document["text"], name) for other, name in names.items() if other != key)
    ]
    assert len(crossing) >= 0.95 * len(corpus)


def test_script_reproduces_the_shipped_file(tmp_path: Path) -> None:
    output = tmp_path / "again.jsonl"
    done = run_script("--output", str(output))
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == SHIPPED.read_bytes()


def test_check_tells_a_changed_file_from_the_right_one(tmp_path: Path) -> None:
    assert run_script("--check").returncode == 0
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(SHIPPED.read_bytes() + b"\n")
    assert run_script("--check", "--output", str(changed)).returncode == 1
    assert run_script("--check", "--output", str(tmp_path / "missing.jsonl")).returncode == 1

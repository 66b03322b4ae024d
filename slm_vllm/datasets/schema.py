"""The canonical row that every dataset yields."""

from __future__ import annotations

import polars as pl

from slm_vllm.types import Passage

DOCUMENT = pl.Struct({"document_id": pl.String, "title": pl.String, "text": pl.String})

CANONICAL_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "question": pl.String(),
        "answers": pl.List(pl.String),
        "contexts": pl.List(pl.String),  # gold paragraphs, may be empty
        "documents": pl.List(DOCUMENT),  # what a retriever may search, may be empty
        "metadata": pl.String(),  # a JSON object; a string because its keys differ between rows
    }
)


def gold_passages(question_id: str, contexts: list[str]) -> tuple[Passage, ...]:
    """A row's gold contexts as passages without title."""
    return tuple(
        Passage(f"{question_id}#gold{number}", "", "", text)
        for number, text in enumerate(contexts, start=1)
        if text.strip()
    )

"""The canonical row every dataset yields, whatever its file looks like."""

from __future__ import annotations

import polars as pl

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

"""Text forms that answers are compared in, as polars expressions."""

from __future__ import annotations

import re
import string

import polars as pl

# Python's `\w`: letters, all kinds of numbers, underscore. Rust's own `\w`, which polars would
# use, differs in combining marks (in) and superscripts (out).
WORD = r"[\p{L}\p{N}_]+"

_PUNCTUATION = f"[{re.escape(string.punctuation)}]"
_ARTICLES = r"\b(?:a|an|the)\b"


def words(text: pl.Expr) -> pl.Expr:
    r"""The lower-cased Unicode words (`\w+`) of each string: List(String)."""
    return text.str.to_lowercase().str.extract_all(WORD)


def squad_normalized(text: pl.Expr) -> pl.Expr:
    """SQuAD's normal form: lower case, no ASCII punctuation, no articles, single blanks.

    A text of which nothing would be left ("A", "The") keeps its lower-cased words: an empty form
    equals an empty prediction and is a substring of everything.

    Source: the SQuAD v1.1 evaluation (Rajpurkar et al., 2016), function `normalize_answer`.
    """
    bare = text.str.to_lowercase().str.replace_all(_PUNCTUATION, "")
    form = _single_blanks(bare.str.replace_all(_ARTICLES, " "))
    return pl.when(form == "").then(_single_blanks(bare)).otherwise(form)


def _single_blanks(text: pl.Expr) -> pl.Expr:
    return text.str.replace_all(r"\s+", " ").str.strip_chars()

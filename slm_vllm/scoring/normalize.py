"""Text forms that answers are compared in, as polars expressions."""

from __future__ import annotations

import re
import string

import polars as pl

# Python's `\w`: letters, all kinds of numbers, underscore. Rust's own `\w`, which polars would
# use, differs in combining marks (in) and superscripts (out).
WORD = r"[\p{L}\p{N}_]+"

_PUNCTUATION = f"[{re.escape(string.punctuation)}]"
# Articles between Python's word boundaries; Rust's `\b` takes combining marks for parts of words.
_ARTICLES = r"(^|[^\p{L}\p{N}_])(?:a|an|the)($|[^\p{L}\p{N}_])"
# What Python's `split` splits at: Rust's `\s` lacks the four separators.
_BLANKS = r"[\s\x1c-\x1f]+"


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
    # A match takes the character behind the article, so every second one waits for a second turn.
    once = bare.str.replace_all(_ARTICLES, "${1} ${2}")
    form = _single_blanks(once.str.replace_all(_ARTICLES, "${1} ${2}"))
    return pl.when(form == "").then(_single_blanks(bare)).otherwise(form)


def _single_blanks(text: pl.Expr) -> pl.Expr:
    return text.str.replace_all(_BLANKS, " ").str.strip_chars(" ")

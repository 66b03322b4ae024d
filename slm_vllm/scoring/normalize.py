"""Text forms that answers are compared in, as polars expressions.

Regular expressions over every word are what scoring would spend most of its time on. A text of
nothing but letters, digits, ASCII punctuation and ASCII blanks, as nearly all are, goes through
literal replacements and one split instead; any other text takes the general path. Both give the
same result.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

import polars as pl

# Python's `\w`: letters, all kinds of numbers, underscore. Rust's own `\w`, which polars would
# use, differs in combining marks (in) and superscripts (out).
WORD = r"[\p{L}\p{N}_]+"

_PUNCTUATION = f"[{re.escape(string.punctuation)}]"
# Without these, ASCII blanks and punctuation are all that stands between words.
_UNUSUAL = r"[^\p{L}\p{N}\t-\r -~]"
_ARTICLES = ("a", "an", "the")
# Finds them all, and a few more ("ten").
_NOTHING_BUT_ARTICLES = rf"^[anthe\s{re.escape(string.punctuation)}]*$"
# Articles between Python's word boundaries; Rust's `\b` takes combining marks for parts of words.
_ARTICLE = r"(^|[^\p{L}\p{N}_])(?:a|an|the)($|[^\p{L}\p{N}_])"
# What Python's `split` splits at: Rust's `\s` lacks the four separators.
_BLANKS = r"[\s\x1c-\x1f]+"


def words(text: pl.Series) -> pl.Series:
    r"""The lower-cased Unicode words (`\w+`) of each string: List(String)."""
    return _by_kind(text.str.to_lowercase(), _UNUSUAL, _plain_words, _general_words)


def squad_tokens(text: pl.Series) -> pl.Series:
    """SQuAD's normal form as tokens: lower case, no ASCII punctuation, no articles.

    A text of which nothing would be left ("A", "The") keeps its lower-cased words: an empty form
    equals an empty prediction and is a substring of everything.

    Source: the SQuAD v1.1 evaluation (Rajpurkar et al., 2016), function `normalize_answer`.

    Returns:
        List(String); joined by single blanks it is the normal form.
    """
    kind = f"{_UNUSUAL}|{_NOTHING_BUT_ARTICLES}"
    return _by_kind(text.str.to_lowercase(), kind, _plain_squad_tokens, _general_squad_tokens)


def _by_kind(
    text: pl.Series,
    special: str,
    plain: Callable[[pl.Expr], pl.Expr],
    general: Callable[[pl.Expr], pl.Expr],
) -> pl.Series:
    """`general` of the texts in which `special` is found, `plain` of the others."""
    name = text.name
    is_special = text.str.contains(special).fill_null(value=False)
    column = pl.col(name)
    frame = text.to_frame()
    if not is_special.any():
        return frame.select(plain(column)).to_series()
    both = pl.concat(
        [
            frame.filter(~is_special).select(plain(column)),
            frame.filter(is_special).select(general(column)),
        ]
    )
    # Where each row went: the plain ones first, in order, then the special ones.
    places = pl.concat([(~is_special).arg_true(), is_special.arg_true()]).arg_sort()
    return both.to_series().gather(places)


def _plain_words(text: pl.Expr) -> pl.Expr:
    return _split(text.str.replace_all(r"[\t-\r!-/:-@\[-^`{-~]", " "))


def _general_words(text: pl.Expr) -> pl.Expr:
    return text.str.extract_all(WORD)


def _plain_squad_tokens(text: pl.Expr) -> pl.Expr:
    bare = text.str.replace_all(_PUNCTUATION, "").str.replace_all(r"[\t-\r]", " ")
    return bare.str.split(" ").list.eval(pl.element().filter(~pl.element().is_in(["", *_ARTICLES])))


def _general_squad_tokens(text: pl.Expr) -> pl.Expr:
    bare = text.str.replace_all(_PUNCTUATION, "")
    # A match takes the character behind the article, so every second one waits for a second turn.
    once = bare.str.replace_all(_ARTICLE, "${1} ${2}")
    form = once.str.replace_all(_ARTICLE, "${1} ${2}").str.replace_all(_BLANKS, " ")
    kept = pl.when(form.is_in(["", " "])).then(bare.str.replace_all(_BLANKS, " ")).otherwise(form)
    return _split(kept)


def _split(text: pl.Expr) -> pl.Expr:
    return text.str.split(" ").list.eval(pl.element().filter(pl.element() != ""))

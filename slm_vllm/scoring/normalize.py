"""What a word is, what SQuAD's normal form is, and when an answer stands in a text.

The one place of these definitions; `docs/statistics.md` tells them to users. A text is folded
first: characters that are never shown (zero-width ones, soft hyphens, direction marks, variation
selectors) are left out, then NFKC, lower case, an i with a dot above is an i. Its words are runs of
letters, marks, digits and underscores that begin with no mark; in scripts written without blanks
each letter with its marks is a word.

Regular expressions over every word are what scoring would spend most of its time on. A text that
folding leaves as it is but for capitals, and in which only blanks and common punctuation stand
between words, as nearly all are, goes through literal replacements and one split instead; any other
text takes the general path. Both give the same result.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

import polars as pl

SCORING_VERSION = 2
"""Raised when a score of any text changes. 1 had `\\w+` for words, and ASCII's punctuation."""
WORDS_VERSION = 2
"""Raised when the words of any text change."""

# Scripts without blanks. The sign of a long vowel and that of a closed letter belong to several.
UNSPACED = (
    r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー〆]&&[\p{L}\p{Nl}]]"
)
_UNSPACED_WORD = rf"{UNSPACED}\p{{M}}*"
# Python's `\w` is letters, all kinds of numbers and the underscore.
_WORD = rf"{_UNSPACED_WORD}|[[\p{{L}}\p{{N}}_]--{UNSPACED}][[\p{{L}}\p{{M}}\p{{N}}_]--{UNSPACED}]*"
UNSEEN = r"[\p{Default_Ignorable_Code_Point}--\p{L}]"
PUNCTUATION = rf"[\p{{P}}{re.escape(string.punctuation)}]"
# What parts words though no blank stands beside it. A hyphen and an apostrophe join.
SEPARATOR = "[‒-―…、。〈-】〔-〛！（），：；？]"

_PLAIN_SIGNS = r"!-/:-@\[-^`{-~«»–—‘’“”"
# Letters that NFKC leaves alone, with no marks among them: Latin, Greek, Cyrillic, Hebrew, Arabic,
# Vietnamese, Hangul.
_PLAIN_LETTERS = (
    "0-9A-Z_a-zÀ-ÖØ-öø-įıĴ-ľŁ-ňŊ-žƠơƯưḀ-ẙẠ-ỹ"
    "\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03ce\u0400-\u0481\u048a-\u052f"
    "\u05d0-\u05ea\u0621-\u063a\u0641-\u064a\uac00-\ud7a3"
)
_UNUSUAL = rf"[^\t-\r {_PLAIN_SIGNS}{_PLAIN_LETTERS}]"
_ARTICLES = ("a", "an", "the")
# Finds them all, and a few more ("ten").
_NOTHING_BUT_ARTICLES = rf"(?i)^[anthe\s_{_PLAIN_SIGNS}]*$"
_ARTICLE = r"(^|[^\p{L}\p{M}\p{N}])(?:a|an|the)($|[^\p{L}\p{M}\p{N}])"
# What Python's `split` splits at: Rust's `\s` lacks the four separators.
BLANKS = r"[\s\x1c-\x1f]"


def words(text: pl.Series) -> pl.Series:
    """The words of each string, in order and as often as they occur: List(String)."""
    return _by_kind(text, _UNUSUAL, _plain_words, _general_words)


def squad_tokens(text: pl.Series) -> pl.Series:
    """SQuAD's normal form as tokens: folded, no punctuation, no articles.

    As in SQuAD, punctuation is taken away and leaves no blank, and ASCII's symbols count as
    punctuation. Beyond SQuAD that goes for all punctuation of Unicode, and each letter of a script
    without blanks is a token. A text of which nothing would be left ("A", "The") keeps its words:
    an empty form equals an empty prediction and is a substring of everything.

    Source: the SQuAD v1.1 evaluation (Rajpurkar et al., 2016), function `normalize_answer`.

    Returns:
        List(String); joined by single blanks it is the normal form.
    """
    kind = f"{_UNUSUAL}|{_NOTHING_BUT_ARTICLES}"
    return _by_kind(text, kind, _plain_squad_tokens, _general_squad_tokens)


def squad_form(tokens: pl.Series) -> pl.Series:
    """SQuAD's normal form, with a blank before, between and after the tokens; "" for none.

    An answer stands in a text where its form is a substring of what `searchable` makes of the text:
    there it begins and ends where a word does ("K" is not in "Korea", "京" is in "北京").

    Args:
        tokens: `squad_tokens` of texts.
    """
    inside = pl.col(tokens.name).list.join(" ")
    form = pl.when(inside != "").then(pl.format(" {} ", inside)).otherwise(pl.lit(""))
    return tokens.to_frame().select(form.alias(tokens.name)).to_series()


def searchable(text: pl.Series, form: pl.Series | None = None) -> pl.Series:
    """What the `squad_form` of an answer is looked for in.

    It is the text's own form. Where dashes, ellipses or the punctuation of scripts without blanks
    occur, the form in which these part words follows on a line of its own: both "1995" and
    "1990-1995" stand in "1990\N{EN DASH}1995".

    Args:
        text: The texts.
        form: Their `squad_form`, where it is known already.
    """
    if form is None:
        form = squad_form(squad_tokens(text))
    rows = text.str.contains(SEPARATOR).fill_null(value=False).arg_true()
    if not len(rows):
        return form
    parted = text.gather(rows).str.replace_all(SEPARATOR, " ")
    both = form.gather(rows) + "\n" + squad_form(squad_tokens(parted))
    # `scatter` changes the series itself.
    return form.clone().scatter(rows, both)


def stands_in(answer_form: str, searchable_text: str) -> pl.Expr:
    """Whether an answer stands in a text, from columns of `squad_form` and `searchable`.

    An answer of underscores has words but no form; it stands nowhere.
    """
    form = pl.col(answer_form)
    return (form != "") & pl.col(searchable_text).str.contains(form, literal=True)


def _by_kind(
    text: pl.Series,
    special: str,
    plain: Callable[[pl.Expr], pl.Expr],
    general: Callable[[pl.Expr], pl.Expr],
) -> pl.Series:
    """`general` of the texts in which `special` is found, `plain` of the others in lower case."""
    name = text.name
    lower = text.str.to_lowercase()
    is_special = text.str.contains(special).fill_null(value=False)
    column = pl.col(name)
    if not is_special.any():
        return lower.to_frame().select(plain(column)).to_series()
    both = pl.concat(
        [
            lower.to_frame().filter(~is_special).select(plain(column)),
            text.to_frame().filter(is_special).select(general(_folded(column))),
        ]
    )
    # Where each row went: the plain ones first, in order, then the special ones.
    places = pl.concat([(~is_special).arg_true(), is_special.arg_true()]).arg_sort()
    return both.to_series().gather(places)


def _folded(text: pl.Expr) -> pl.Expr:
    lower = text.str.replace_all(UNSEEN, "").str.normalize("NFKC").str.to_lowercase()
    # A small letter can have a composed form where the capital has none.
    return lower.str.replace_all("i\u0307", "i", literal=True).str.normalize("NFC")


def _plain_words(text: pl.Expr) -> pl.Expr:
    return _split(text.str.replace_all(rf"[\t-\r{_PLAIN_SIGNS}]", " "))


def _general_words(text: pl.Expr) -> pl.Expr:
    return text.str.extract_all(_WORD)


def _plain_squad_tokens(text: pl.Expr) -> pl.Expr:
    bare = text.str.replace_all(rf"[_{_PLAIN_SIGNS}]", "").str.replace_all(r"[\t-\r]", " ")
    return bare.str.split(" ").list.eval(pl.element().filter(~pl.element().is_in(["", *_ARTICLES])))


def _general_squad_tokens(text: pl.Expr) -> pl.Expr:
    bare = text.str.replace_all(PUNCTUATION, "")
    bare = bare.str.replace_all(_UNSPACED_WORD, " ${0} ").str.replace_all(f"{BLANKS}+", " ")
    # A match takes the character behind the article, so every second one waits for a second turn.
    form = bare.str.replace_all(_ARTICLE, "${1} ${2}").str.replace_all(_ARTICLE, "${1} ${2}")
    return _split(pl.when(form.str.strip_chars(" ") == "").then(bare).otherwise(form))


def _split(text: pl.Expr) -> pl.Expr:
    return text.str.split(" ").list.eval(pl.element().filter(pl.element() != ""))

"""Words, SQuAD's normalisation, and when a text contains an answer.

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
HANGUL = r"\p{Hangul}"
"""Korean: written with blanks, but particles are part of the word before them."""
PUNCTUATION = rf"[\p{{P}}{re.escape(string.punctuation)}]"
# What parts words though no blank stands beside it: dashes, and the punctuation of scripts without
# blanks, of Tibetan and of Ethiopic. A hyphen and an apostrophe join.
SEPARATOR = "[\u0f0b-\u0f14\u1361-\u1368‒-―…、。〈-】〔-〛！（），：；？]"

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
_ARTICLE = r"(^|[^\p{L}\p{M}\p{N}])(?:a|an|the)($|[^\p{L}\p{M}\p{N}])"
# What Python's `split` splits at: Rust's `\s` lacks the four separators.
BLANKS = r"[\s\x1c-\x1f]"


def words(text: pl.Series, unusual: pl.Series | None = None) -> pl.Series:
    """The words of each string, in order and as often as they occur: List(String).

    Args:
        text: The strings.
        unusual: `is_unusual` of them, where it is known already.
    """
    unusual = is_unusual(text) if unusual is None else unusual
    return _by_kind(text, unusual, _plain_words, _general_words)


def usable_answers(answers: pl.Series) -> pl.DataFrame:
    """The answers that have a word, one a line: `row`, the position of their list, and `answer`.

    Args:
        answers: List(String).
    """
    rows = pl.DataFrame({"answer": answers}).with_row_index("row")
    exploded = rows.explode("answer", empty_as_null=True).drop_nulls()
    return exploded.filter(words(exploded["answer"]).list.len() > 0)


def squad_tokens(text: pl.Series, unusual: pl.Series | None = None) -> pl.Series:
    """SQuAD's normal form as tokens: folded, no punctuation, no articles.

    As in SQuAD, punctuation is taken away and leaves no blank, and ASCII's symbols count as
    punctuation. Beyond SQuAD that goes for all punctuation of Unicode, and each letter of a script
    without blanks is a token. A text of which nothing would be left ("A", "The") keeps its words:
    an empty form equals an empty prediction and is a substring of everything.

    Source: the SQuAD v1.1 evaluation (Rajpurkar et al., 2016), function `normalize_answer`.

    Args:
        text: The strings.
        unusual: `is_unusual` of them, where it is known already.

    Returns:
        List(String); joined by single blanks it is the normal form.
    """
    unusual = is_unusual(text) if unusual is None else unusual
    tokens = _by_kind(text, unusual, _plain_squad_tokens, _general_squad_tokens)
    rows = (tokens.list.len() == 0).fill_null(value=False).arg_true()
    if not len(rows):
        return tokens
    kept = text.gather(rows).to_frame().select(_articles_alone(pl.col(text.name)))
    return _replaced(tokens, rows, kept.to_series())


def is_unusual(text: pl.Series) -> pl.Series:
    """Which strings need the general path."""
    return text.str.contains(_UNUSUAL).fill_null(value=False)


def squad_form(tokens: pl.Series) -> pl.Series:
    """SQuAD's normal form, with a blank before, between and after the tokens; "" for none.

    An answer stands in a text where its form is a substring of what `searchable` makes of the text:
    there it begins and ends where a word does ("K" is not in "Korea", "京" is in "北京").

    Args:
        tokens: `squad_tokens` of texts.
    """
    inside = tokens.list.join(" ").alias("inside").to_frame()
    form = pl.when(pl.col("inside") != "").then(pl.format(" {} ", "inside")).otherwise(pl.lit(""))
    return inside.select(form.alias(tokens.name)).to_series()


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
    # No separator is ASCII.
    rows = (text.str.len_bytes() > text.str.len_chars()).fill_null(value=False).arg_true()
    rows = rows.filter(text.gather(rows).str.contains(SEPARATOR))
    if not len(rows):
        return form
    parted = text.gather(rows).str.replace_all(SEPARATOR, " ")
    both = form.gather(rows) + "\n" + squad_form(squad_tokens(parted))
    return _replaced(form, rows, both)


def stands_in(answer_form: str, searchable_text: str) -> pl.Expr:
    """Whether an answer stands in a text, from columns of `squad_form` and `searchable`.

    An answer of underscores has words but no form; it stands nowhere.
    """
    form = pl.col(answer_form)
    return (form != "") & pl.col(searchable_text).str.contains(form, literal=True)


def skeleton(text: pl.Series) -> pl.Series:
    """What every token of a text's `searchable` form is a substring of; null of unusual texts.

    A text without some token of an answer cannot hold the answer. This tells it at a sixth of what
    the form costs, and most texts that a search finds hold no answer.
    """
    bare = _without_signs(pl.col(text.name).str.to_lowercase())
    return text.to_frame().select(bare).to_series().set(is_unusual(text), None)


def _by_kind(
    text: pl.Series,
    unusual: pl.Series,
    plain: Callable[[pl.Expr], pl.Expr],
    general: Callable[[pl.Expr], pl.Expr],
) -> pl.Series:
    """`general` of the unusual texts, folded, and `plain` of the others in lower case."""
    column = pl.col(text.name)
    frame = text.to_frame()
    if not unusual.any():
        return frame.select(plain(column.str.to_lowercase())).to_series()
    both = pl.concat(
        [
            frame.filter(~unusual).select(plain(column.str.to_lowercase())),
            frame.filter(unusual).select(general(_folded(column))),
        ]
    )
    # Where each row went: the plain ones first, in order, then the unusual ones.
    places = pl.concat([(~unusual).arg_true(), unusual.arg_true()]).arg_sort()
    return both.to_series().gather(places)


def _replaced(values: pl.Series, rows: pl.Series, others: pl.Series) -> pl.Series:
    """The values with others in the place of some rows."""
    n = len(values)
    places = pl.int_range(n, eager=True).scatter(rows, pl.int_range(n, n + len(rows), eager=True))
    return pl.concat([values, others]).gather(places)


def _folded(text: pl.Expr) -> pl.Expr:
    lower = text.str.replace_all(UNSEEN, "").str.normalize("NFKC").str.to_lowercase()
    # A small letter can have a composed form where the capital has none.
    return lower.str.replace_all("i\u0307", "i", literal=True).str.normalize("NFC")


def _plain_words(text: pl.Expr) -> pl.Expr:
    return _split(text.str.replace_all(rf"[\t-\r{_PLAIN_SIGNS}]", " "))


def _general_words(text: pl.Expr) -> pl.Expr:
    return text.str.extract_all(_WORD)


def _plain_squad_tokens(text: pl.Expr) -> pl.Expr:
    bare = _without_signs(text).str.replace_all(r"[\t-\r]", " ")
    return bare.str.split(" ").list.eval(pl.element().filter(~pl.element().is_in(["", *_ARTICLES])))


def _without_signs(text: pl.Expr) -> pl.Expr:
    return text.str.replace_all(rf"[_{_PLAIN_SIGNS}]", "")


def _general_squad_tokens(text: pl.Expr) -> pl.Expr:
    bare = _without_punctuation(text)
    # A match takes the character behind the article, so every second one waits for a second turn.
    once = bare.str.replace_all(_ARTICLE, "${1} ${2}")
    return _split(once.str.replace_all(_ARTICLE, "${1} ${2}"))


def _articles_alone(text: pl.Expr) -> pl.Expr:
    """The tokens of texts that are nothing but articles: these."""
    return _split(_without_punctuation(_folded(text)))


def _without_punctuation(text: pl.Expr) -> pl.Expr:
    bare = text.str.replace_all(PUNCTUATION, "")
    return bare.str.replace_all(_UNSPACED_WORD, " ${0} ").str.replace_all(f"{BLANKS}+", " ")


def _split(text: pl.Expr) -> pl.Expr:
    return text.str.split(" ").list.eval(pl.element().filter(pl.element() != ""))

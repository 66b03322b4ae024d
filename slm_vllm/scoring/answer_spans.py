"""Where an answer occurs in a text: the spans that the report marks.

Whether it occurs at all is defined by `scoring.normalize`. Its place is found piece by piece: a
piece is a run without blanks, or a letter with its marks in a script without blanks, small enough
to be normalised by itself and to be highlighted as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from slm_vllm.scoring.normalize import (
    BLANKS,
    PUNCTUATION,
    SEPARATOR,
    UNSEEN,
    UNSPACED,
    searchable,
    squad_form,
    squad_tokens,
    stands_in,
    usable_answers,
)

Span = tuple[int, int]

# Signs that NFKC joins to the letter before them, though they are letters themselves.
_JOINING = "ำຳﾞﾟ"
_LETTER = rf"[{UNSPACED}--[{_JOINING}]][\p{{M}}{UNSEEN}{_JOINING}]*"
_READINGS = (  # as in `searchable`: separators join, or part; without one both are the same
    rf"{_LETTER}|[^{BLANKS}{UNSPACED}]+|[{_JOINING}]|[{BLANKS}]+",
    rf"{_LETTER}|[^{BLANKS}{SEPARATOR}{UNSPACED}]+|[{_JOINING}]|[{BLANKS}{SEPARATOR}]+",
)
_CORE = f"(?s)^([{PUNCTUATION}{UNSEEN}]*)(.*?)[{PUNCTUATION}{UNSEEN}]*$"
_ASTRAL = "[\U00010000-\U0010ffff]"
_LAST = " z"


def answer_spans(texts: pl.Series, answers: pl.Series) -> list[list[Span] | None]:
    """The places of each text where one of its answers stands.

    Args:
        texts: String; null counts as empty.
        answers: List(String), those of each text.

    Returns:
        For each text None where no answer stands in it, else its places from left to right without
        overlap, in UTF-16 code units as JavaScript counts them. There may be none: an answer of
        articles alone stands in an equal text, yet no piece of that is a token.
    """
    found = _found(texts, answers)
    spans: list[list[Span] | None] = [None] * len(texts)
    for row in found["row"]:
        spans[row] = []
    parted = found.filter(pl.col("text").str.contains(SEPARATOR))
    for reading, read in zip(_READINGS, (found, parted), strict=True):
        for row, forms, tokens, starts, ends in _pieces(read, reading).iter_rows():
            places = spans[row]
            assert places is not None
            places += _places(forms, tokens, starts, ends)
    return [None if places is None else _merged(places) for places in spans]


def holds_answer(texts: pl.Series, answers: pl.Series) -> pl.Series:
    """Whether one of its answers stands in each text: Boolean. See `answer_spans`."""
    found = _found(texts, answers)["row"]
    rows = pl.int_range(len(texts), dtype=pl.UInt32).is_in(found.cast(pl.UInt32).implode())
    return pl.select(rows).to_series()


def _found(texts: pl.Series, answers: pl.Series) -> pl.DataFrame:
    """The texts that hold an answer: row, text, and the forms of those it holds."""
    rows = pl.DataFrame({"text": texts.fill_null("")}).with_row_index("row")
    pairs = usable_answers(answers)
    pairs = pairs.with_columns(squad_form(squad_tokens(pairs["answer"]))).unique()
    return (
        rows.select("row", searchable(rows["text"]).alias("searchable"))
        .join(pairs, on="row")
        .filter(stands_in("answer", "searchable"))
        .group_by("row")
        .agg("answer")
        .join(rows, on="row")
    )


def _pieces(found: pl.DataFrame, reading: str) -> pl.DataFrame:
    """For each row its answers, and the tokens of its text with the places of their pieces."""
    pieces = (
        found.select("row", pl.col("text").str.extract_all(reading).alias("piece"))
        .explode("piece", empty_as_null=True)
        .drop_nulls("piece")
        .with_columns(_length("piece").alias("length"))
        .with_columns((pl.col("length").cum_sum() - pl.col("length")).over("row").alias("start"))
    )
    distinct = pieces.select(pl.col("piece").unique())
    # The last word keeps an article from being all there is, which would be kept.
    distinct = distinct.with_columns(squad_tokens(distinct["piece"] + _LAST).alias("token"))
    distinct = distinct.with_columns(
        pl.col("token").list.head(pl.col("token").list.len() - 1),
        _length(pl.col("piece").str.extract(_CORE, 1)).alias("before"),
        _length(pl.col("piece").str.extract(_CORE, 2)).alias("core"),
    )
    start = pl.col("start") + pl.col("before")
    return (
        pieces.join(distinct, on="piece", maintain_order="left")
        .explode("token", empty_as_null=True)
        .drop_nulls("token")
        .select(
            "row",
            "token",
            start.alias("start"),
            (start + pl.col("core")).alias("end"),
        )
        .group_by("row", maintain_order=True)
        .agg("token", "start", "end")
        .join(found.select("row", "answer"), on="row")
        .select("row", "answer", "token", "start", "end")
    )


def _places(
    forms: Sequence[str], tokens: Sequence[str], starts: Sequence[int], ends: Sequence[int]
) -> Iterator[Span]:
    # A blank before each token and none in one: so many blanks, so many tokens.
    text = f" {' '.join(tokens)} "
    for form in forms:
        place = text.find(form)
        while place >= 0:
            last = place + len(form) - 1
            yield starts[text.count(" ", 0, place)], ends[text.count(" ", 0, last) - 1]
            place = text.find(form, last)


def _merged(places: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(places):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _length(text: str | pl.Expr) -> pl.Expr:
    """UTF-16 code units."""
    column = pl.col(text) if isinstance(text, str) else text
    return column.str.len_chars().cast(pl.Int64) + column.str.count_matches(_ASTRAL)

"""Length of the expected answers, and the groups of lengths that figures show."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from slm_vllm.scoring.normalize import words

Bins = Sequence[tuple[str, int]]
"""Label, and the lowest value of the group; it ends where the next one begins."""

ANSWER_LENGTHS: Bins = (("1", 1), ("2", 2), ("3", 3), ("4-5", 4), ("6-9", 6), ("10+", 10))


def answer_length(answers: pl.Series) -> pl.Series:
    """Words of the shortest answer that has one (Int64); null where there is none.

    Args:
        answers: List(String), those of each row.
    """
    rows = pl.DataFrame({"answer": answers}).with_row_index("row")
    exploded = rows.explode("answer", empty_as_null=True)
    lengths = (
        exploded.with_columns(words(exploded["answer"]).list.len().alias("words"))
        .group_by("row", maintain_order=True)
        .agg(pl.col("words").filter(pl.col("words") > 0).min())
    )
    shortest: pl.Series = lengths["words"].cast(pl.Int64)
    return shortest

"""From the votes on an answer to its grade, and from grades to figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from slm_vllm.rundir.judgement import GRADES_SCHEMA
from slm_vllm.scoring.grades import GRADES, NOT_ATTEMPTED

TIE, UNREAD, FAILED, UNSCORED = "tie", "unread", "failed", "unscored"
WITHOUT_GRADE = {
    TIE: "tied votes",
    UNREAD: "replies without a grade",
    FAILED: "requests that failed",
    UNSCORED: "without a usable expected answer",
}
"""Why an answer has no grade, and what that is called in front of people."""

EMPTY: dict[str, Any] = {"grade": NOT_ATTEMPTED, "undecided": None, "votes": []}
"""An answer of nothing: not attempted, and nobody is asked."""


def decide(votes: Sequence[str | None], n_failed: int = 0) -> dict[str, Any]:
    """The grade that has more votes than any other.

    Args:
        votes: The grades of the replies; None for a reply that could not be read.
        n_failed: Requests that got no reply.

    Returns:
        `grade`, `undecided` and `votes` of `GRADES_SCHEMA`.
    """
    read = [vote for vote in votes if vote is not None]
    if not read:
        why = FAILED if n_failed and not votes else UNREAD
        return {"grade": None, "undecided": why, "votes": []}
    ranked = Counter(read).most_common()
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        return {"grade": None, "undecided": TIE, "votes": read}
    return {"grade": ranked[0][0], "undecided": None, "votes": read}


def grades_frame(question_ids: pl.Series, verdicts: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The rows of `judgement.parquet`, see `GRADES_SCHEMA`."""
    columns = {name: [one[name] for one in verdicts] for name in ("grade", "undecided", "votes")}
    return pl.DataFrame({"question_id": question_ids, **columns}, schema=GRADES_SCHEMA)


def grade_counts(frame: pl.DataFrame) -> dict[str, int]:
    """Rows of each grade, and of each reason for none."""
    counts = {"total": frame.height}
    for column, names in (("grade", GRADES), ("undecided", WITHOUT_GRADE)):
        for name in names:
            counts[name] = int((frame[column] == name).sum())
    return counts

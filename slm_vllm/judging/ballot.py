"""Answers and the votes on them: from the judge's questions to its grades."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from slm_vllm.judging.judge import Case, Judge
from slm_vllm.judging.verdict import EMPTY, UNSCORED, decide, grades_frame
from slm_vllm.scoring.answers import score_answers

_WITHOUT_ANSWER: dict[str, Any] = {"grade": None, "undecided": UNSCORED, "votes": []}


class Ballot:
    """Rows of answers, each to be voted on.

    Args:
        rows: The columns `rundir.judgement.ANSWER_COLUMNS`.
        votes: How often each answer is asked about.
    """

    def __init__(self, rows: pl.DataFrame, votes: int) -> None:
        self._rows, self._votes = rows, votes
        # What a usable answer is, scoring says: other rows have no value in any metric.
        unscored = score_answers(rows)["token_recall"].is_null()
        blank = rows["prediction"].fill_null("").str.strip_chars() == ""
        empty = blank | rows["error"].is_not_null()
        self._known = [
            _WITHOUT_ANSWER if is_unscored else EMPTY if is_empty else None
            for is_unscored, is_empty in zip(unscored, empty, strict=True)
        ]

    @property
    def n_empty(self) -> int:
        """Answers of nothing, which nobody is asked about."""
        return sum(one is EMPTY for one in self._known)

    def cases(self) -> Iterator[Case]:
        """All votes on all answers that the judge has to see."""
        for _, votes in self._open():
            yield from votes

    def grades(self, judge: Judge, replies: Mapping[int, tuple[str | None, bool]]) -> pl.DataFrame:
        """The grade of each row, see `GRADES_SCHEMA`.

        Args:
            judge: Names the cases.
            replies: By key the grade that was read, and whether the request failed.
        """
        verdicts = [one or {} for one in self._known]
        for number, votes in self._open():
            given = [replies[key] for vote in votes if (key := judge.key(vote)) in replies]
            read = [grade for grade, has_failed in given if not has_failed]
            verdicts[number] = decide(read, len(votes) - len(read))
        return grades_frame(self._rows["question_id"], verdicts)

    def _open(self) -> Iterator[tuple[int, list[Case]]]:
        for number, row in enumerate(self._rows.iter_rows(named=True)):
            if self._known[number] is None:
                question, prediction = row["question"] or "", row["prediction"]
                answers = tuple(dict.fromkeys(filter(None, row["answers"])))
                yield (
                    number,
                    [
                        Case(row["question_id"], question, answers, prediction, vote)
                        for vote in range(self._votes)
                    ],
                )

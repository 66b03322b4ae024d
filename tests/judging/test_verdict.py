"""Votes to grades."""

from __future__ import annotations

import pytest

from slm_vllm.judging.verdict import decide


@pytest.mark.parametrize(
    ("votes", "n_failed", "grade", "undecided"),
    [
        (["correct"], 0, "correct", None),
        (["correct", "incorrect", "correct"], 0, "correct", None),
        (["correct", "incorrect"], 0, None, "tie"),
        (["correct", "incorrect", "not_attempted"], 0, None, "tie"),
        (["correct", None], 0, "correct", None),
        (["incorrect"], 2, "incorrect", None),
        ([None, None], 0, None, "unread"),
        ([None], 1, None, "unread"),
        ([], 2, None, "failed"),
    ],
)
def test_the_most_votes_decide(
    votes: list[str | None], n_failed: int, grade: str | None, undecided: str | None
) -> None:
    found = decide(votes, n_failed)
    assert (found["grade"], found["undecided"]) == (grade, undecided)
    assert found["votes"] == [vote for vote in votes if vote]

"""Graders without a model: thresholds of token recall, and refusal phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from slm_vllm.scoring.agreement import Agreement, agreement
from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.grades import CORRECT, GRADES, INCORRECT, NOT_ATTEMPTED
from slm_vllm.scoring.refusals import is_refusal

JUDGE, PHRASES = "judge", "contains, refusal phrases"
_THRESHOLDS = (0.25, 0.5, 0.75, 1.0)
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class Compared:
    """One grader against labels, or against the judge.

    Attributes:
        grader: What grades.
        against: "labels" or "judge".
        grades: How many grades it tells apart: 3, or 2 (correct, or not).
        found: The agreement.
    """

    grader: str
    against: str
    grades: int
    found: Agreement

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"grader": self.grader, "against": self.against, **self.found.to_json()}


def baselines(rows: pl.DataFrame, column: str, against: str) -> list[Compared]:
    """Each of them against the grades in a column.

    Args:
        rows: `prediction`, `answers` and that column, which has no null.
        column: Holds `GRADES`.
        against: Whose grades they are.
    """
    scored = score_answers(rows).with_columns(is_refusal("prediction").alias("refused"))
    by_phrase = scored.select(
        pl.when("refused")
        .then(pl.lit(NOT_ATTEMPTED))
        .when(pl.col("contains") == 1)
        .then(pl.lit(CORRECT))
        .otherwise(pl.lit(INCORRECT))
    ).to_series()
    found = [Compared(PHRASES, against, 3, grade_agreement(scored[column], by_phrase))]
    binary = _is_correct(scored[column] == CORRECT)
    for name, thresholds in (("token_recall", _THRESHOLDS), ("exact_match", (1.0,))):
        for threshold in thresholds:
            label = f"{name} >= {threshold:g}" if len(thresholds) > 1 else name
            given = _is_correct(scored[name].fill_null(0.0) >= threshold)
            agreed = agreement(binary, given, (CORRECT, _OTHER))
            found.append(Compared(label, against, 2, agreed))
    return found


def grade_agreement(labels: pl.Series, given: pl.Series) -> Agreement:
    """Agreement in the three grades."""
    return agreement(labels.to_list(), given.to_list(), GRADES)


def _is_correct(values: pl.Series) -> Sequence[str]:
    return [CORRECT if value else _OTHER for value in values]

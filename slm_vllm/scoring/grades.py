"""Grades of answers, and the figures computed from a judge's grades.

The three grades and their figures are those of SimpleQA: Wei et al., "Measuring short-form
factuality in large language models" (2024). With c correct, i incorrect and s not attempted
answers, n = c + i + s:

    correct = c / n                     correct given attempted = c / (c + i)
    F-score = their harmonic mean = 2 c / (n + c + i)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.scoring.intervals import (
    RESAMPLES,
    MeanEstimate,
    ValueTally,
    interval_of_equals,
    percentile_interval,
)

CORRECT, INCORRECT, NOT_ATTEMPTED = "correct", "incorrect", "not_attempted"
GRADES = (CORRECT, INCORRECT, NOT_ATTEMPTED)

_Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]
_ATTEMPTED = np.array([1, 1, 0])
_Ratio = Callable[[_Counts], npt.NDArray[np.float64]]

GIVEN_ATTEMPTED, F_SCORE = "judge_correct_given_attempted", "judge_f_score"


def grade_columns() -> list[pl.Expr]:
    """A column of 0 and 1 for each grade, from the column `grade`; null where there is none."""
    return [(pl.col("grade") == grade).cast(pl.Float64).alias(f"judge_{grade}") for grade in GRADES]


def grade_estimates(
    counts: Mapping[str, int], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, MeanEstimate]:
    """The five figures with 95 % intervals.

    Shares are means of 0 and 1 (`ValueTally.estimate`). The two ratios are computed again in each
    bootstrap resample of the questions, drawn with replacement; a resample in which nothing was
    attempted has no correct given attempted and is left out of its interval. Their standard error
    is the standard deviation over the resamples. A ratio of 0 or 1 is the same in all of them: its
    other end is that with as many other grades as `interval_of_equals` allows.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13.

    Args:
        counts: Answers of each grade; one that is missing counts 0.
        seed: Seed of the resampling.
        resamples: Number of bootstrap resamples.
    """
    numbers = np.array([counts.get(grade, 0) for grade in GRADES])
    found = {}
    for grade, count in zip(GRADES, numbers.tolist(), strict=True):
        tally = ValueTally()
        tally.add(pl.Series([1.0]).new_from_index(0, count))
        tally.add(pl.Series([0.0]).new_from_index(0, int(numbers.sum()) - count))
        found[f"judge_{grade}"] = tally.estimate(seed=seed, resamples=resamples)
    n = int(numbers.sum())
    draws = np.random.default_rng(seed).multinomial(n, numbers / max(n, 1), resamples)
    return found | {
        GIVEN_ATTEMPTED: _ratio(numbers * _ATTEMPTED, draws, _given_attempted),
        F_SCORE: _ratio(numbers, draws, _f_score),
    }


def _given_attempted(counts: _Counts) -> npt.NDArray[np.float64]:
    correct, incorrect, _ = counts.T
    return _divided(correct, correct + incorrect)


def _f_score(counts: _Counts) -> npt.NDArray[np.float64]:
    correct, incorrect, skipped = counts.T
    return _divided(2 * correct, 2 * (correct + incorrect) + skipped)


def _divided(part: _Counts, whole: _Counts) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.full(part.shape, math.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _ratio(counts: _Counts, draws: _Counts, ratio: _Ratio) -> MeanEstimate:
    """A ratio of the answers of some grades, with its interval."""
    value, n = float(ratio(counts[None, :])[0]), int(counts.sum())
    if n < 2:
        return MeanEstimate(value, math.nan, value, value, n)
    if value in (0.0, 1.0):
        others = interval_of_equals(0.0, n)[1] * n
        other = np.array([others, 0, 0] if value == 0 else [0, others, 0])
        end = float(ratio((counts * (1 - others / n) + other)[None, :])[0])
        return MeanEstimate(value, 0.0, min(value, end), max(value, end), n)
    values = ratio(draws)
    values = values[~np.isnan(values)]
    return MeanEstimate(value, float(values.std(ddof=1)), *percentile_interval(values), n)

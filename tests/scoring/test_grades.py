"""SimpleQA's five figures and their intervals."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.scoring.grades import GRADES, grade_columns, grade_estimates

_counts = st.lists(st.integers(0, 40), min_size=3, max_size=3)


@given(_counts)
@settings(max_examples=50, deadline=None)
def test_figures_are_those_of_the_definitions(counts: list[int]) -> None:
    c, i, s = counts
    found = grade_estimates(dict(zip(GRADES, counts, strict=True)), resamples=50)
    n = c + i + s
    if n == 0:
        assert all(math.isnan(one.mean) for one in found.values())
        return
    for grade, count in zip(GRADES, counts, strict=True):
        assert found[f"judge_{grade}"].mean == pytest.approx(count / n)
        assert found[f"judge_{grade}"].n == n
    given_attempted, f_score = found["judge_correct_given_attempted"], found["judge_f_score"]
    assert given_attempted.n == c + i
    if c + i == 0:
        assert math.isnan(given_attempted.mean)
        assert f_score.mean == 0
        return
    overall, attempted = c / n, c / (c + i)
    harmonic = 2 * overall * attempted / (overall + attempted) if c else 0.0
    assert given_attempted.mean == pytest.approx(attempted)
    assert f_score.mean == pytest.approx(harmonic)
    assert min(overall, attempted) - 1e-9 <= f_score.mean <= max(overall, attempted) + 1e-9
    for one in found.values():
        assert one.low <= one.mean + 1e-9 or one.n < 30
        assert 0 <= one.low <= one.high <= 1


def test_intervals_are_those_of_resampled_questions() -> None:
    counts = {"correct": 60, "incorrect": 25, "not_attempted": 15}
    found = grade_estimates(counts, seed=1)
    grades = np.repeat([0, 1, 2], list(counts.values()))
    drawn = np.random.default_rng(7).choice(grades, size=(10_000, 100))
    c, i = (drawn == 0).sum(axis=1), (drawn == 1).sum(axis=1)
    for name, values in (
        ("judge_correct_given_attempted", c / (c + i)),
        ("judge_f_score", 2 * c / (100 + c + i)),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[name].low == pytest.approx(low, abs=0.012)
        assert found[name].high == pytest.approx(high, abs=0.012)
        assert found[name].stderr == pytest.approx(values.std(), rel=0.05)


def test_intervals_cover_the_truth() -> None:
    """Of 400 samples of 200 questions about 95 % hold the true F-score."""
    generator = np.random.default_rng(3)
    shares = np.array([0.5, 0.3, 0.2])
    truth = 2 * 0.5 / (1 + 0.8)
    held = 0
    for sample in generator.multinomial(200, shares, size=400).tolist():
        one = grade_estimates(dict(zip(GRADES, sample, strict=True)), resamples=400)[
            "judge_f_score"
        ]
        held += one.low <= truth <= one.high
    assert 0.91 <= held / 400 <= 0.98


@pytest.mark.parametrize(
    ("counts", "name", "low", "high"),
    [
        # At most a share u = z^2 / (40 + z^2) = 0.0876 of the answers is of a grade not seen.
        ([40, 0, 0], "judge_correct", 1 - 0.0876, 1),
        ([0, 0, 40], "judge_correct", 0, 0.0876),
        ([40, 0, 0], "judge_correct_given_attempted", 1 - 0.0876, 1),
        ([0, 40, 0], "judge_correct_given_attempted", 0, 0.0876),
        ([40, 0, 500], "judge_correct_given_attempted", 1 - 0.0876, 1),
        ([40, 0, 0], "judge_f_score", 1 - 0.0876, 1),
        ([0, 40, 0], "judge_f_score", 0, 0.0876),
        # Nobody attempted anything: of what is correct, all that is attempted would be.
        ([0, 0, 40], "judge_f_score", 0, 2 * 0.0876 / (1 + 0.0876)),
        ([0, 20, 20], "judge_f_score", 0, 2 * 0.0876 / (1 + 0.0876 + 0.4562)),
    ],
)
def test_what_was_not_seen_may_be_there(
    counts: list[int], name: str, low: float, high: float
) -> None:
    found = grade_estimates(dict(zip(GRADES, counts, strict=True)), resamples=50)[name]
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_columns_are_null_where_there_is_no_grade() -> None:
    frame = pl.DataFrame({"grade": ["correct", None, "not_attempted"]})
    found = frame.select(grade_columns())
    assert found.to_dict(as_series=False) == {
        "judge_correct": [1.0, None, 0.0],
        "judge_incorrect": [0.0, None, 0.0],
        "judge_not_attempted": [0.0, None, 1.0],
    }

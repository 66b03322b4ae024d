from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from slm_vllm.scoring.intervals import (
    ValueTally,
    estimate_mean,
    estimate_share,
    running_interval,
)

VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=60)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_mean_and_standard_error(values: list[float]) -> None:
    found = estimate_mean(pl.Series(values), resamples=100)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.stderr == pytest.approx(stats.sem(values), abs=1e-9)
    if len(set(values)) > 1:
        assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


@pytest.mark.parametrize("kind", ["binary", "thirds", "continuous"])
def test_interval_agrees_with_scipy(kind: str) -> None:
    generator = np.random.default_rng(7)
    data = {
        "binary": generator.integers(0, 2, 150).astype(float),
        "thirds": generator.integers(0, 4, 150) / 3,
        "continuous": generator.beta(0.5, 0.8, 150),
    }[kind]
    found = estimate_mean(pl.Series(data), seed=1)
    theirs = stats.bootstrap(
        (data,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    # The 2.5 % quantile of 10,000 draws has a standard error of about 0.027 standard errors.
    tolerance = 0.15 * found.stderr
    assert found.low == pytest.approx(theirs.low, abs=tolerance)
    assert found.high == pytest.approx(theirs.high, abs=tolerance)


@given(st.integers(1, 5_000), st.floats(0, 1))
def test_running_interval_is_that_of_a_proportion(n: int, mean: float) -> None:
    wanted = proportion_confint(mean * n, n, method="wilson")
    assert running_interval(mean, n) == pytest.approx(wanted, abs=1e-6)


def test_coverage() -> None:
    """95 % nominal; 400 trials see it with a standard error of 1.1 %."""
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        values = pl.Series((generator.random(200) < 0.3).astype(float))
        found = estimate_mean(values, seed=trial, resamples=1000)
        covered += found.low <= 0.3 <= found.high
    assert 0.91 <= covered / 400 <= 0.98


def test_added_in_parts_is_added_at_once() -> None:
    values = pl.Series([0.0, 1.0, None, 0.5, 1.0, None, 0.25])
    tally = ValueTally()
    for part in (values[:3], values[3:3], values[3:]):
        tally.add(part)
    assert (tally.n, tally.mean) == (5, 0.55)
    assert tally.estimate(seed=3) == estimate_mean(values, seed=3)


def test_whole_numbers_and_booleans() -> None:
    assert estimate_mean(pl.Series([1, 0, 1, 1])).mean == 0.75
    assert estimate_mean(pl.Series([True, False])).mean == 0.5


@pytest.mark.parametrize(
    "values", [pl.Series([], dtype=pl.Float64), pl.Series([None, None], dtype=pl.Float64)]
)
def test_no_values(values: pl.Series) -> None:
    found = estimate_mean(values)
    assert found.n == 0
    assert all(math.isnan(x) for x in (found.mean, found.stderr, found.low, found.high))
    nothing = {"mean": None, "stderr": None, "ci95": [None, None], "n": 0}
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == nothing


def test_one_value() -> None:
    found = estimate_mean(pl.Series([0.25]))
    assert (found.n, found.mean, found.low, found.high) == (1, 0.25, 0.25, 0.25)
    assert math.isnan(found.stderr)
    assert found.to_json() == {"mean": 0.25, "stderr": None, "ci95": [0.25, 0.25], "n": 1}


@pytest.mark.parametrize("n", [2, 40, 3610])
def test_equal_values_leave_open_what_was_not_seen(n: int) -> None:
    """20 right answers of 20 are no proof that all are right."""
    _, others = proportion_confint(0, n, method="wilson")
    for value in (0.0, 0.25, 1.0):
        found = estimate_mean(pl.Series([value] * n))
        assert (found.mean, found.stderr) == (value, 0.0)
        # The unseen ones are all 0, or all 1.
        wanted = ((1 - others) * value, (1 - others) * value + others)
        assert (found.low, found.high) == pytest.approx(wanted, abs=1e-6)


def test_intervals_of_rare_answers_cover() -> None:
    """One right answer in 50 of 40 questions: in 45 of 100 samples there is none."""
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(400):
        values = pl.Series((generator.random(40) < 0.02).astype(float))
        found = estimate_mean(values, seed=trial, resamples=500)
        covered += found.low <= 0.02 <= found.high
    assert covered / 400 >= 0.93


def test_seed_decides_the_interval() -> None:
    values = pl.Series(np.random.default_rng(0).random(50))
    first = estimate_mean(values, seed=5)
    assert first == estimate_mean(values, seed=5)
    assert first == estimate_mean(values.reverse(), seed=5)
    assert first != estimate_mean(values, seed=6)


@given(st.integers(0, 500), st.integers(1, 500))
def test_intervals_of_shares_are_those_of_statsmodels(count: int, n: int) -> None:
    count = min(count, n)
    share = estimate_share(count, n)
    low, high = proportion_confint(count, n, method="wilson")
    assert (share.mean, share.low, share.high) == pytest.approx((count / n, low, high), abs=1e-6)


def test_a_share_of_nothing_is_unknown() -> None:
    assert math.isnan(estimate_share(0, 0).mean)

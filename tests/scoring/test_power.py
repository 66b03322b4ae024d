from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from slm_vllm.scoring.paired import sign_flip_p_value
from slm_vllm.scoring.power import (
    PairedSpread,
    assumed_spread,
    detectable_difference,
    questions_needed,
)


def test_by_hand() -> None:
    # (1.95996 + 0.84162)^2 * 0.15 / 0.02^2 = 2943.3, and 1.95996^2 / 2 = 1.92 more.
    assert questions_needed(PairedSpread(0.15), 0.02) == 2946


@given(
    st.floats(0.01, 0.5), st.floats(0.02, 0.3), st.floats(0.5, 0.99), st.sampled_from([0.01, 0.05])
)
def test_statsmodels_needs_as_many(
    variance: float, difference: float, power: float, alpha: float
) -> None:
    needed = questions_needed(PairedSpread(variance), difference, power=power, alpha=alpha)
    exact = TTestPower()
    effect = difference / math.sqrt(variance)
    if needed > 8:
        assert exact.power(effect, needed, alpha) > power - 1e-2
        assert exact.power(effect, needed - 2, alpha) < power + 1e-3


@given(st.floats(0.01, 0.25), st.integers(40, 100_000), st.sampled_from([None, 0.0, -0.1]))
def test_n_questions_show_a_difference_and_none_smaller(
    variance: float, n: int, mean: float | None
) -> None:
    spread = PairedSpread(variance, mean)
    shown = detectable_difference(spread, n)
    assert questions_needed(spread, shown) <= n < questions_needed(spread, shown - 0.0001)


@given(st.data())
def test_a_larger_difference_scatters_no_more_than_is_planned_for(data: st.DataObject) -> None:
    """Single differences of a 0/1 metric, of which some grow."""
    before = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=1, max_size=30)))
    grown = np.array([data.draw(st.integers(int(value), 1)) for value in before])
    if before.mean() >= 0:
        planned = PairedSpread(float(before.var()), float(before.mean())).at(float(grown.mean()))
        assert grown.var() <= planned + 1e-12


def test_ties_that_become_gains_scatter_as_planned() -> None:
    before = np.array([1, 1, 1, 1, -1, 0, 0, 0, 0, 0])
    grown = np.array([1, 1, 1, 1, -1, 1, 1, 0, 0, 0])
    spread = PairedSpread(float(before.var()), float(before.mean()))
    assert spread.at(float(grown.mean())) == pytest.approx(grown.var(), abs=1e-12)
    assert spread.at(0.1) == spread.variance


def test_too_few_questions_show_nothing() -> None:
    assert math.isnan(detectable_difference(PairedSpread(0.1), 1))


def test_assumed_variance_is_that_of_correlated_runs() -> None:
    draw = np.random.default_rng(0)
    shared, own = draw.normal(size=200_000), draw.normal(size=(2, 200_000))
    runs = math.sqrt(0.7) * shared + math.sqrt(0.3) * own
    expected = assumed_spread(float(runs[0].var()), 0.7).at(0.1)
    assert (runs[0] - runs[1]).var() == pytest.approx(expected, rel=0.02)


def test_the_permutation_test_has_the_promised_power() -> None:
    """400 comparisons of graded values with a true difference of 0.1."""
    draw = np.random.default_rng(1)
    values, shares = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]), [0.08, 0.04, 0.68, 0.04, 0.16]
    mean = float(values @ shares)
    variance = float(values**2 @ shares) - mean**2
    n = questions_needed(PairedSpread(variance), mean)
    found = sum(
        sign_flip_p_value(draw.choice(values, n, p=shares), seed=i, resamples=999) <= 0.05
        for i in range(400)
    )
    assert found / 400 == pytest.approx(0.8, abs=0.06)  # three standard errors

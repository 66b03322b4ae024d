from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.scoring.sequential import (
    Sequence,
    always_valid_p_value,
    compare_stopped_pairs,
    confidence_sequence,
)

STAKES = np.geomspace(0.005, 0.95, 24)
DIFFERENCES = st.lists(st.sampled_from([-1.0, -0.5, -1 / 3, 0.0, 0.25, 0.5, 1.0]), max_size=60)


def capital(differences: np.ndarray, m: float) -> float:
    """By the definition, one bet and one question after the other."""
    total = 0.0
    for stake in STAKES:
        for side in (1, -1):
            money = 1 / (2 * len(STAKES))
            for d in differences:
                money *= 1 - stake + stake * (1 + side * d) / (1 + side * m)
            total += money
    return total


@settings(deadline=None, max_examples=25)
@given(DIFFERENCES, st.floats(-0.95, 0.95))
def test_the_interval_is_what_bets_have_not_ruled_out(values: list[float], m: float) -> None:
    differences = np.array(values)
    found = confidence_sequence(differences)
    if not values:
        assert (found.low, found.high, found.n) == (-1, 1, 0)
        return
    assert found.low <= np.mean(values) <= found.high
    if min(abs(m - found.low), abs(m - found.high)) > 1e-4:
        assert (found.low < m < found.high) == (capital(differences, m) < 20)
    assert always_valid_p_value(differences) == pytest.approx(min(1, 1 / capital(differences, 0)))


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_equal_differences_close_in_on_their_value(value: float) -> None:
    found = confidence_sequence(np.full(2000, value))
    assert found.mean == value
    assert max(found.low, -1) <= value <= min(found.high, 1)
    assert found.high - found.low < 0.02


def test_unscored_questions_are_left_out() -> None:
    assert confidence_sequence(np.array([0.5, np.nan, 0.0])).n == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "mean"),
    [
        ([0.08, 0.06, 0.72, 0.06, 0.08], 0.0),
        ([0.0, 0.0, 0.9, 0.0, 0.1], 0.1),
        ([0.03, 0.54, 0.1, 0.0, 0.33], 0.03),
    ],
)
def test_the_true_mean_is_ever_left_out_in_at_most_5_of_100_sequences(
    shares: list[float], mean: float
) -> None:
    """Looked at after every one of 500 questions."""
    draw = np.random.default_rng(3)
    values = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert values @ shares == pytest.approx(mean)
    sequences, questions = 2000, 500
    drawn = draw.choice(values, (sequences, questions), p=shares)
    logs = []
    for stake in STAKES:
        for side in (1, -1):
            gain = 1 - stake + stake * (1 + side * drawn) / (1 + side * mean)
            logs.append(np.cumsum(np.log(gain), axis=1))
    capitals = np.logaddexp.reduce(logs) - math.log(len(logs))
    assert (capitals.max(axis=1) >= math.log(20)).mean() <= 0.05
    last = confidence_sequence(drawn[0])
    assert (last.low < mean < last.high) == (capitals[0, -1] < math.log(20))


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (0.001, 0.3, "better"),
        (-0.3, -0.001, "worse"),
        (-0.009, 0.009, "no difference"),
        (0.001, 0.009, "better"),
        (-0.009, 0.011, None),
        (-0.011, 0.009, None),
    ],
)
def test_what_is_settled(low: float, high: float, decision: str | None) -> None:
    assert Sequence((low + high) / 2, low, high, 100).decision(0.01) == decision


def test_stopped_pairs_have_figures_that_hold_at_any_look() -> None:
    draw = np.random.default_rng(0)
    ours, theirs = draw.integers(0, 2, (2, 80)).astype(float)
    ours[3] = np.nan
    differences = np.delete(ours - theirs, 3)
    found = compare_stopped_pairs(ours, theirs)
    sequence = confidence_sequence(differences)
    estimate = found.difference
    assert (estimate.mean, estimate.low, estimate.high) == (
        sequence.mean,
        sequence.low,
        sequence.high,
    )
    assert estimate.stderr == pytest.approx(differences.std(ddof=1) / math.sqrt(79))
    assert found.p_value == always_valid_p_value(differences)
    assert found.mcnemar is None and found.is_always_valid
    counted = ((differences > 0).sum(), (differences == 0).sum(), (differences < 0).sum())
    assert (found.wins, found.ties, found.losses) == counted

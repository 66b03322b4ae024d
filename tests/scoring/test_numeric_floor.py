from __future__ import annotations

import math

import numpy as np
import pytest

from slm_vllm.scoring.numeric_floor import numeric_change, numeric_floor


def test_by_hand() -> None:
    first = np.array([1.0, 0.0, 0.5, np.nan, 1.0])
    second = np.array([0.0, 0.0, 1.0, np.nan, 1.0])
    change = numeric_change(first, second)
    assert change.mean.mean == pytest.approx((-1 + 0.5) / 4)
    assert change.mean_square == pytest.approx((1 + 1 + 0.25) / 5)
    assert numeric_floor(0.3125, 100) == pytest.approx(1.959964 * math.sqrt(0.003125))


def test_nothing_asked_again_is_nothing_known() -> None:
    assert math.isnan(numeric_change(np.array([np.nan]), np.array([1.0])).mean_square)


@pytest.mark.slow
def test_another_pass_stays_within_the_floor_in_95_of_100_cases() -> None:
    """Two passes over 400 questions of which a third gets an answer by chance of batching."""
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        chance = np.where(draw.random(400) < 1 / 3, draw.beta(2, 2, 400), 0.0)
        one, other, asked_again = (draw.random((3, 400)) < chance).astype(float)
        square = numeric_change(one[:100], asked_again[:100]).mean_square
        inside += abs(other.mean() - one.mean()) <= numeric_floor(square, 400)
    # Three standard errors are 1.5 points; the floor is estimated from 100 rows, on the high side.
    assert 0.935 < inside / 2000 < 0.985

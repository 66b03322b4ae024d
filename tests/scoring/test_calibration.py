from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from slm_vllm.scoring.calibration import (
    abstentions,
    area_under_risk_coverage,
    calibration,
    calibration_bins,
)


def answers(n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, and being right less often than that."""
    draw = np.random.default_rng(seed)
    confidence = draw.beta(3, 2, n)
    return confidence, (draw.random(n) < confidence**1.5).astype(float)


def test_bins_and_brier_are_those_of_scikit_learn() -> None:
    confidence, right = answers()
    confidence[:5] = [0.0, 0.1, 0.5, 0.9, 1.0]  # edges too
    accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy="uniform")
    bins = [one for one in calibration_bins(confidence, right) if one.n]
    assert [one.accuracy for one in bins] == pytest.approx(list(accuracy))
    assert [one.confidence for one in bins] == pytest.approx(list(mean))
    found = calibration(confidence, right)
    assert found is not None
    assert found.brier == pytest.approx(brier_score_loss(right, confidence))
    sizes = np.array([one.n for one in bins])
    assert found.ece == pytest.approx(sizes @ np.abs(accuracy - mean) / 2000)
    assert found.accuracy == pytest.approx(right.mean())


def test_a_calibrated_confidence_has_a_small_error_and_a_false_one_its_size() -> None:
    draw = np.random.default_rng(1)
    confidence = draw.random(50_000)
    found = calibration(confidence, (draw.random(50_000) < confidence).astype(float))
    sure = calibration(np.full(1000, 0.9), (np.arange(1000) < 400).astype(float))
    assert found is not None and sure is not None
    assert found.ece < 0.01
    assert sure.ece == pytest.approx(0.5)
    assert calibration(np.array([]), np.array([])) is None


LEVELS = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])


@settings(deadline=None)
@given(st.lists(st.tuples(LEVELS, st.booleans()), min_size=1, max_size=5))
def test_the_area_is_the_mean_over_all_orders_of_ties(rows: list[tuple[float, bool]]) -> None:
    areas = []
    for order in permutations(rows):
        if [one for one, _ in order] == sorted((one for one, _ in rows), reverse=True):
            wrong = np.cumsum([not right for _, right in order])
            areas.append((wrong / np.arange(1, len(rows) + 1)).mean())
    confidence = np.array([one for one, _ in rows])
    right = np.array([float(one) for _, one in rows])
    assert area_under_risk_coverage(confidence, right) == pytest.approx(np.mean(areas))


def test_a_confidence_that_tells_nothing_has_the_share_of_errors_as_its_area() -> None:
    right = np.array([1.0, 0, 0, 1, 0])
    assert area_under_risk_coverage(np.full(5, 0.3), right) == pytest.approx(0.6)


def test_abstaining_keeps_the_answers_of_a_confidence() -> None:
    confidence, right = answers(200)
    points = abstentions(confidence, right)
    assert points[0].coverage == 1 and points[0].accuracy.mean == pytest.approx(right.mean())
    assert [one.coverage for one in points] == pytest.approx(np.arange(1, 0, -0.1))
    for one in points:
        kept = confidence >= one.threshold
        assert one.coverage == pytest.approx(kept.mean())
        assert one.accuracy.mean == pytest.approx(right[kept].mean())
    assert points[-1].accuracy.mean > points[0].accuracy.mean


def test_ties_are_answered_together() -> None:
    points = abstentions(np.array([0.4] * 6 + [0.8] * 4), np.array([0.0] * 6 + [1.0] * 4))
    assert [(one.threshold, one.coverage) for one in points] == [(0.4, 1.0), (0.8, 0.4)]
    assert not any(math.isnan(one.accuracy.mean) for one in points)

"""Accuracy, confusion and Cohen's kappa."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.scoring.agreement import agreement

LABELS = ("a", "b", "c")
_pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), max_size=60)


@given(_pairs)
@settings(deadline=None)
def test_kappa_and_its_interval_are_those_of_statsmodels(pairs: list[tuple[str, str]]) -> None:
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    found = agreement([one for one, _ in pairs], [other for _, other in pairs], LABELS)
    used = [i for i in range(3) if found.confusion[i].sum() or found.confusion[:, i].sum()]
    if len(used) < 2:
        assert math.isnan(found.kappa)
        return
    theirs = rater.cohens_kappa(found.confusion[np.ix_(used, used)])
    assert found.kappa == pytest.approx(theirs.kappa, abs=1e-9)
    # Where its variance is 0 rounding makes theirs NaN or a root of 1e-17.
    if theirs.std_kappa > 1e-6 and abs(theirs.kappa) < 1:
        error = theirs.std_kappa / (1 - theirs.kappa**2)
        for end, side in ((found.low, -1), (found.high, 1)):
            wanted = np.tanh(np.arctanh(theirs.kappa) + side * 1.959964 * error)
            assert end == pytest.approx(wanted, abs=1e-6)


def test_confusion_has_a_row_for_each_label() -> None:
    found = agreement(["a", "a", "b"], ["a", "c", "b"], LABELS)
    assert found.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.n == 3


def test_a_perfect_grader_has_kappa_1_and_one_of_constant_grades_0() -> None:
    labels = list("aabbcc")
    assert agreement(labels, labels, LABELS).kappa == pytest.approx(1)
    assert agreement(labels, ["a"] * 6, LABELS).kappa == pytest.approx(0)


@pytest.mark.parametrize("n", [6, 60])
def test_all_equal_is_no_proof_of_a_perfect_grader(n: int) -> None:
    """With a share u of others off the diagonal and the sums as they are."""
    labels = list("aabbcc") * (n // 6)
    found = agreement(labels, labels, LABELS)
    others = 1.959964**2 / (n + 1.959964**2)
    by_chance = 1 / 3
    wanted = (1 - others - by_chance) / (1 - by_chance)
    assert (found.low, found.high) == (pytest.approx(wanted, abs=1e-6), 1)


def test_constant_grades_have_a_kappa_of_exactly_0() -> None:
    found = agreement(list("aaabbcc"), ["b"] * 7, LABELS)
    assert (found.low, found.kappa, found.high) == (0, 0, 0)


def test_no_rows_have_no_figures() -> None:
    found = agreement([], [], LABELS)
    assert math.isnan(found.accuracy) and math.isnan(found.kappa)
    assert found.to_json()["kappa_ci95"] == [None, None]


@pytest.mark.parametrize(("knows", "n"), [(0.7, 200), (0.9, 50)])
def test_the_interval_covers_the_true_kappa(knows: float, n: int) -> None:
    """A grader that knows some labels and else chooses among three at random."""
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        truth = generator.integers(0, 3, n)
        given_ = np.where(generator.random(n) < knows, truth, generator.integers(0, 3, n))
        found = agreement([LABELS[i] for i in truth], [LABELS[i] for i in given_], LABELS)
        held += found.low <= knows <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_grader_that_is_always_wrong() -> None:
    found = agreement(list("aabb"), list("bbaa"), LABELS)
    others = 1.959964**2 / (4 + 1.959964**2)
    assert (found.kappa, found.low) == (-1, -1)
    assert found.high == pytest.approx(-1 + others / 0.5, abs=1e-6)

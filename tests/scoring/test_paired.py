from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from slm_vllm.scoring import intervals, paired
from slm_vllm.scoring.paired import (
    compare_pairs,
    estimate_difference,
    holm,
    mcnemar_p_value,
    sign_flip_p_value,
)

LEVELS = (0.0, 0.25, 1 / 3, 0.5, 2 / 3, 1.0)


def exact_sign_flip(differences: np.ndarray) -> float:
    """Every one of the 2^n flips, by the definition."""
    observed = abs(differences.sum()) - 1e-9
    flips = itertools.product((-1, 1), repeat=len(differences))
    extreme = [abs(np.dot(flip, differences)) >= observed for flip in flips]
    return float(np.mean(extreme))


def few_values(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated pairs with the few values of token recall; no difference on average for 0."""
    draw = np.random.default_rng(seed)
    ability = draw.normal(size=n)
    pair = [np.digitize(ability + draw.normal(size=n) + s, [-1.5, 0, 0.3, 1.0]) for s in (shift, 0)]
    return tuple(np.array([0.0, 0.25, 0.5, 2 / 3, 1.0])[levels] for levels in pair)  # type: ignore


def many_values(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    ability = draw.normal(size=n)
    return ability + draw.normal(size=n) + shift, ability + draw.normal(size=n)


# -- golden cases, by hand ------------------------------------------------------------------------


def test_wins_ties_losses_by_hand() -> None:
    ours = np.array([1.0, 0.5, 0.0, 1.0, 2 / 3, np.nan, 0.5])
    base = np.array([0.0, 0.5, 0.5, 0.5, 1 / 3, 1.0, np.nan])
    found = compare_pairs(ours, base)
    # +1, 0, -1/2, +1/2, +1/3; the last two pairs are unscored.
    assert (found.wins, found.ties, found.losses) == (3, 1, 1)
    assert found.difference.n == 5
    assert found.difference.mean == pytest.approx((1 - 0.5 + 0.5 + 1 / 3) / 5)
    assert found.mcnemar is None


def test_equal_thirds_are_ties() -> None:
    found = compare_pairs(np.array([0.1 + 0.2, 1.0]), np.array([0.3, 0.0]))
    assert (found.wins, found.ties, found.losses) == (1, 1, 0)


def test_mcnemar_by_hand() -> None:
    ours = np.array([1, 1, 1, 1, 1, 0, 0, 1.0])
    base = np.array([0, 0, 0, 0, 0, 1, 0, 1.0])
    assert compare_pairs(ours, base).mcnemar is None  # graded, whatever the sample holds
    found = compare_pairs(ours, base, is_binary=True).mcnemar
    assert found is not None
    assert (found.gained, found.lost) == (5, 1)
    # Two-sided: 2 * (1 + 6) / 2^6.
    assert found.p_value == pytest.approx(14 / 64)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04: never falling.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    nan_kept = holm([0.02, math.nan, 0.03])
    assert nan_kept[0] == pytest.approx(0.04) and math.isnan(nan_kept[1])


# -- against independent implementations ----------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_scipy_and_statsmodels(gained: int, lost: int) -> None:
    found = mcnemar_p_value(gained, lost)
    table = [[7, gained], [lost, 9]]
    assert found == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-9)
    if gained + lost:
        theirs = stats.binomtest(gained, gained + lost, 0.5).pvalue
        assert found == pytest.approx(theirs, rel=1e-9)


def test_mcnemar_of_many_pairs() -> None:
    theirs = stats.binomtest(499_000, 1_000_000, 0.5).pvalue
    assert mcnemar_p_value(499_000, 501_000) == pytest.approx(theirs, rel=1e-6)
    assert 0.0 <= mcnemar_p_value(0, 1_000_000) < 1e-300


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LEVELS), st.sampled_from(LEVELS)), min_size=1, max_size=10)
)
def test_p_value_agrees_with_all_flips(pairs: list[tuple[float, float]]) -> None:
    differences = np.array([a - b for a, b in pairs])
    exact = exact_sign_flip(differences)
    # Five standard errors of 10,000 flips.
    tolerance = 5 * math.sqrt(max(exact * (1 - exact), 1e-4) / 10_000) + 2e-4
    assert sign_flip_p_value(differences) == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize("make", [few_values, many_values])
@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_p_value_agrees_with_scipy(make, shift: float) -> None:
    ours, base = make(300, 5, shift)
    theirs = stats.permutation_test(
        (ours - base,),
        np.mean,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert compare_pairs(ours, base).p_value == pytest.approx(theirs, abs=0.02)


@pytest.mark.parametrize("make", [few_values, many_values])
def test_interval_agrees_with_scipy(make) -> None:
    ours, base = make(300, 3, 0.2)
    found = estimate_difference(ours, base, seed=1)
    theirs = stats.bootstrap(
        (ours, base),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.mean == pytest.approx(np.mean(ours - base), abs=1e-9)
    assert found.stderr == pytest.approx(stats.sem(ours - base), rel=1e-6)
    # The 2.5 % quantile of 10,000 draws has a standard error of about 0.027 standard errors.
    assert found.low == pytest.approx(theirs.low, abs=0.15 * found.stderr)
    assert found.high == pytest.approx(theirs.high, abs=0.15 * found.stderr)


# -- long-run behaviour ---------------------------------------------------------------------------


def type_one_error(make, n: int, trials: int, resamples: int) -> float:
    rejected = 0
    for trial in range(trials):
        ours, base = make(n, trial)
        p = sign_flip_p_value(np.round(ours - base, 12), seed=trial, resamples=resamples)
        rejected += p <= 0.05
    return rejected / trials


def coverage(make, truth: float, n: int, trials: int, resamples: int) -> float:
    covered = 0
    for trial in range(trials):
        ours, base = make(n, trial, 0.3)
        found = estimate_difference(ours, base, seed=trial, resamples=resamples)
        covered += found.low <= truth <= found.high
    return covered / trials


@pytest.mark.slow
def test_type_one_error_of_both_ways_to_flip() -> None:
    """5 % nominal; 5,000 trials see it with a standard error of 0.3 %."""
    assert 0.045 <= type_one_error(few_values, 200, 5_000, 999) <= 0.055
    assert 0.045 <= type_one_error(many_values, 100, 5_000, 999) <= 0.055


@pytest.mark.slow
def test_coverage_of_both_ways_to_draw() -> None:
    """95 % nominal; 2,000 trials see it with a standard error of 0.5 %."""
    truth = float(np.subtract(*few_values(2_000_000, 99, 0.3)).mean())
    assert 0.94 <= coverage(few_values, truth, 200, 2_000, 1000) <= 0.96
    assert 0.94 <= coverage(many_values, 0.3, 200, 2_000, 1000) <= 0.96


def test_it_sees_a_difference_that_is_there() -> None:
    assert compare_pairs(*few_values(500, 1, 0.5)).p_value < 0.001


# -- properties -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LEVELS), st.sampled_from(LEVELS)), min_size=1, max_size=80)
)
def test_swapping_the_runs_swaps_the_signs(pairs: list[tuple[float, float]]) -> None:
    ours, base = (np.array(column) for column in zip(*pairs, strict=True))
    one = compare_pairs(ours, base, resamples=500)
    other = compare_pairs(base, ours, resamples=500)
    assert one.difference.mean == pytest.approx(-other.difference.mean)
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.p_value == other.p_value
    assert 0 < one.p_value <= 1
    assert one.difference.low - 1e-9 <= one.difference.high
    assert one.wins + one.ties + one.losses == len(pairs)


def test_both_ways_to_draw_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over distinct values or over rows: the same distribution."""
    ours, base = few_values(400, 8, 0.08)
    fast = compare_pairs(ours, base)
    monkeypatch.setattr(paired, "_ROWS_PER_VALUE", 10**9)
    slow = compare_pairs(ours, base)
    assert slow.p_value == pytest.approx(fast.p_value, abs=0.02)
    assert slow.difference.low == pytest.approx(
        fast.difference.low, abs=0.15 * slow.difference.stderr
    )
    assert slow.difference.high == pytest.approx(
        fast.difference.high, abs=0.15 * slow.difference.stderr
    )


def test_blocks_do_not_change_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, base = many_values(50, 8)
    whole = compare_pairs(ours, base)
    monkeypatch.setattr(paired, "_SIGNS", 50 * 77)
    monkeypatch.setattr(intervals, "_BLOCK_NUMBERS", 50 * 7)
    parts = compare_pairs(ours, base)
    assert parts.p_value == pytest.approx(whole.p_value, abs=0.02)
    assert parts.difference.low == pytest.approx(whole.difference.low, abs=0.03)


def test_seed_decides() -> None:
    ours, base = few_values(300, 4)
    assert compare_pairs(ours, base, seed=1) == compare_pairs(ours, base, seed=1)
    assert compare_pairs(ours, base, seed=1) != compare_pairs(ours, base, seed=2)


def test_order_of_the_questions_does_not_matter() -> None:
    ours, base = few_values(300, 4, 0.1)
    order = np.random.default_rng(0).permutation(300)
    assert compare_pairs(ours, base) == compare_pairs(ours[order], base[order])


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("n", [10, 100])
def test_every_question_is_drawn(place: int, n: int) -> None:
    """With as many values as questions, and with two."""
    values = np.arange(n) / 1e4 if n == 10 else np.zeros(n)
    values[place] = 1.0
    assert estimate_difference(values, np.zeros(n)).high > 1 / n


def test_same_run_twice() -> None:
    ours, _ = few_values(50, 1)
    found = compare_pairs(ours, ours)
    assert (found.p_value, found.wins, found.losses) == (1.0, 0, 0)
    # 50 questions without a difference leave open that up to 7.1 % of all have one, either way.
    _, others = proportion_confint(0, 50, method="wilson")
    ends = (found.difference.mean, found.difference.low, found.difference.high)
    assert ends == pytest.approx((0, -others, others), abs=1e-6)


def test_a_difference_that_is_always_the_same() -> None:
    found = estimate_difference(np.full(30, 0.75), np.full(30, 0.25))
    _, others = proportion_confint(0, 30, method="wilson")
    assert found.low == pytest.approx((1 - others) * 0.5 - others, abs=1e-6)
    assert found.high == pytest.approx((1 - others) * 0.5 + others, abs=1e-6)


def test_no_pair_and_one_pair() -> None:
    nothing = compare_pairs(np.array([np.nan]), np.array([1.0]), is_binary=True)
    assert nothing.difference.n == 0 and math.isnan(nothing.p_value) and nothing.mcnemar is None
    assert json.loads(json.dumps(nothing.to_json(), allow_nan=False))["p_value"] is None
    one = compare_pairs(np.array([1.0]), np.array([0.0]))
    assert (one.difference.mean, one.difference.low, one.difference.high) == (1.0, 1.0, 1.0)
    assert one.p_value == 1.0

"""Compares two runs over the same questions: difference, interval, significance.

All of it works on one metric value of each run for each question, paired by question. Metrics have
few distinct values, so most draws are made over distinct values instead of over questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slm_vllm.scoring.intervals import (
    NO_VALUES,
    RESAMPLES,
    MeanEstimate,
    blocks,
    bootstrap_means,
    interval_of_equals,
    percentile_interval,
)

Values = npt.NDArray[np.float64]

# Differences of equal scores may differ in their last bits; none of ours differ by less than this.
_DECIMALS = 12
# Signs drawn at a time. Unlike all other draws, those of bytes depend on how many are made at once.
_SIGNS = 8_000_000
# Draws over n rows cost as much as draws over n / 8 distinct values, as measured.
_ROWS_PER_VALUE = 8


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test of a 0/1 metric.

    Attributes:
        gained: Questions that only the compared run has right.
        lost: Questions that only the baseline has right.
        p_value: Two-sided.
    """

    gained: int
    lost: int
    p_value: float


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """A run against its baseline.

    Attributes:
        difference: Mean difference, run minus baseline, with its bootstrap interval.
        p_value: Of the sign-flip permutation test, two-sided.
        wins: Questions with a higher value than the baseline's.
        ties: Questions with the same value.
        losses: Questions with a lower value.
        mcnemar: For 0/1 metrics, else None.
        is_always_valid: Interval and p-value hold although a run was stopped when its figures were
            seen; see `scoring.sequential`.
    """

    difference: MeanEstimate
    p_value: float
    wins: int
    ties: int
    losses: int
    mcnemar: McNemar | None
    is_always_valid: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN becomes null."""
        return {
            "difference": self.difference.to_json(),
            "p_value": None if math.isnan(self.p_value) else self.p_value,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "mcnemar": None if self.mcnemar is None else asdict(self.mcnemar),
            "is_always_valid": self.is_always_valid,
        }


def compare_pairs(
    values: Values,
    baseline: Values,
    *,
    is_binary: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedComparison:
    """Compares two runs question by question.

    Args:
        values: The metric of the run, one value for each question; NaN where it is unscored.
        baseline: That of the baseline, in the same order. Pairs with a NaN are left out.
        is_binary: Whether the metric's only values are 0 and 1: McNemar's test is made.
        seed: Seed of the resampling; the same values and seed give the same figures.
        resamples: Number of bootstrap resamples, and of sign flips.
    """
    differences = paired_differences(values, baseline)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return PairedComparison(
        difference=estimate_difference(values, baseline, seed=seed, resamples=resamples),
        p_value=sign_flip_p_value(differences, seed=seed, resamples=resamples),
        wins=wins,
        ties=len(differences) - wins - losses,
        losses=losses,
        mcnemar=McNemar(wins, losses, mcnemar_p_value(wins, losses))
        if is_binary and len(differences)
        else None,
    )


def estimate_difference(
    values: Values, baseline: Values, *, seed: int = 0, resamples: int = RESAMPLES
) -> MeanEstimate:
    """Mean of the paired differences with a percentile bootstrap interval over questions.

    Questions are drawn with replacement, and both runs' values go with them. Where all differences
    are the same the interval is `interval_of_equals`.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
    """
    differences = paired_differences(values, baseline)
    n = len(differences)
    if n == 0:
        return NO_VALUES
    mean = math.fsum(differences) / n
    if n == 1:
        return MeanEstimate(mean, math.nan, mean, mean, 1)
    if (differences == differences[0]).all():
        return MeanEstimate(mean, 0.0, *interval_of_equals(mean, n, lowest=-1.0), n)
    means = _resampled_means(differences, np.random.default_rng(seed), resamples)
    stderr = float(differences.std(ddof=1)) / math.sqrt(n)
    return MeanEstimate(mean, stderr, *percentile_interval(means), n)


def sign_flip_p_value(differences: Values, *, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of the paired permutation test of "the mean difference is 0".

    If the two runs were exchangeable on each question, every difference would have either sign
    with probability 1/2. p = (1 + number of flips with |sum| >= |observed sum|) / (1 + flips); the
    two 1s count the observed signs as a flip, which keeps the test valid.

    Source: Fisher, The Design of Experiments (1935), section 21; Phipson and Smyth, "Permutation
    p-values should never be zero" (2010) for the estimate.

    Args:
        differences: One for each question; zeros are allowed and change nothing.
        seed: Seed of the flips.
        resamples: Number of random flips.

    Returns:
        NaN for no differences, 1.0 if all are zero.
    """
    if not len(differences):
        return math.nan
    sizes = np.abs(differences[differences != 0])
    observed = abs(math.fsum(differences))
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(sizes, return_counts=True)
    # Sums of the same numbers in another order differ in their last bits.
    least = observed - 1e-9 * math.fsum(sizes)
    extreme = 0
    if len(distinct) * _ROWS_PER_VALUE <= len(sizes):
        # The number of plus signs among equal sizes is binomial.
        for size in blocks(resamples, len(distinct)):
            plus = generator.binomial(counts, 0.5, size=(size, len(distinct)))
            extreme += int((np.abs((2 * plus - counts) @ distinct) >= least).sum())
    else:
        for sums in _random_sums(sizes, generator, resamples):
            extreme += int((np.abs(sums) >= least).sum())
    return (1 + extreme) / (1 + resamples)


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test.

    Under the null hypothesis the discordant pairs are gained or lost with probability 1/2:
    p = min(1, 2 * P(X <= min(gained, lost))), X ~ Binomial(gained + lost, 1/2).

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions"
    (1947); the exact form is in Agresti, Categorical Data Analysis (2013), section 11.1.

    Args:
        gained: Pairs that only the one run has right.
        lost: Pairs that only the other has right.
    """
    n, fewer = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    log_factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    k = np.arange(fewer + 1)
    terms = log_factorials[n] - log_factorials[k] - log_factorials[n - k] - n * math.log(2)
    return min(1.0, 2.0 * math.fsum(np.exp(terms)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values so that the chance of any false rejection among them stays bounded.

    With p sorted, p(i) becomes max over j <= i of min(1, (m - j + 1) * p(j)). NaN stays NaN and is
    not counted in m.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    adjusted = [math.nan] * len(p_values)
    known = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__
    )
    highest = 0.0
    for rank, place in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def paired_differences(values: Values, baseline: Values) -> Values:
    """Values minus baseline where neither is NaN; equal scores differ by exactly 0."""
    scored = ~(np.isnan(values) | np.isnan(baseline))
    # The sum with 0.0 turns a negative zero into the other one.
    rounded: Values = np.round(values[scored] - baseline[scored], _DECIMALS) + 0.0
    return rounded


def _resampled_means(differences: Values, generator: np.random.Generator, resamples: int) -> Values:
    """Means of resamples with replacement."""
    n = len(differences)
    distinct, counts = np.unique(differences, return_counts=True)
    if len(distinct) * _ROWS_PER_VALUE <= n:
        return bootstrap_means(distinct, counts, generator, resamples)
    parts = []
    for size in blocks(resamples, n):
        rows = generator.integers(0, n, size=(size, n), dtype=np.int32)
        parts.append(differences.take(rows, mode="clip").mean(axis=1))
    return np.concatenate(parts)


def _random_sums(sizes: Values, generator: np.random.Generator, resamples: int) -> Iterator[Values]:
    """Sums of the sizes with random signs, one bit drawn for each sign."""
    n = len(sizes)
    for rows in blocks(resamples, n, _SIGNS):
        data = np.frombuffer(generator.bytes(rows * -(-n // 8)), dtype=np.uint8).reshape(rows, -1)
        start = 0
        for size in blocks(rows, n):
            bits = np.unpackbits(data[start : start + size], axis=1, count=n)
            yield (bits.astype(np.float64) * 2.0 - 1.0) @ sizes
            start += size

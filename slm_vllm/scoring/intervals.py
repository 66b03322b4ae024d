"""Means with their uncertainty."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.json_text import json_number

CONFIDENCE = 0.95
RESAMPLES = 10_000
_Z = 1.959964  # 97.5 % quantile of the normal distribution
# Numbers held at a time while resampling: they fit a core's cache, and their memory is small enough
# to be used again instead of being asked of the system each time. Twice as fast as 8,000,000.
_BLOCK_NUMBERS = 32_000


class Mean(TypedDict):
    """A `MeanEstimate` as JSON, which has no NaN: what does not exist is None."""

    mean: float | None
    stderr: float | None
    ci95: list[float | None]
    n: int


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """A mean, its standard error and a 95 % interval.

    Attributes:
        mean: Arithmetic mean, NaN for no values.
        stderr: Sample standard deviation (n - 1) over sqrt(n); NaN below two values.
        low: Lower end of the interval: percentile bootstrap, or see `interval_of_equals`.
        high: Upper end.
        n: Number of values.
    """

    mean: float
    stderr: float
    low: float
    high: float
    n: int

    def to_json(self) -> Mean:
        """The form of `results.json`."""
        mean, stderr, low, high = map(json_number, (self.mean, self.stderr, self.low, self.high))
        return {"mean": mean, "stderr": stderr, "ci95": [low, high], "n": self.n}


NO_VALUES = MeanEstimate(math.nan, math.nan, math.nan, math.nan, 0)


def estimate_share(count: int, n: int) -> MeanEstimate:
    """A share with Wilson's 95 % interval, which holds near 0 and 1 too; NaN for n = 0."""
    if n == 0:
        return NO_VALUES
    share = count / n
    stderr = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else math.nan
    return MeanEstimate(share, stderr, *running_interval(share, n), n)


class ValueTally:
    """How often each value occurred: all that a mean and its bootstrap need.

    Metrics have few distinct values, so a million rows take no more memory than a thousand.
    """

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()

    def add(self, values: pl.Series) -> None:
        """Counts the values that are not null."""
        known = values.drop_nulls()
        if len(known):
            counted = known.cast(pl.Float64).value_counts()
            self._counts.update(dict(counted.iter_rows()))

    @property
    def n(self) -> int:
        """Number of values."""
        return self._counts.total()

    @property
    def mean(self) -> float:
        """Arithmetic mean, NaN for no values."""
        n = self.n
        return (
            math.fsum(value * count for value, count in self._counts.items()) / n if n else math.nan
        )

    def estimate(self, *, seed: int = 0, resamples: int = RESAMPLES) -> MeanEstimate:
        """Mean with standard error and a percentile bootstrap interval.

        Where all values are the same that interval is `interval_of_equals`.

        Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

        Args:
            seed: Seed of the resampling; the same values and seed give the same interval.
            resamples: Number of bootstrap resamples.
        """
        n, mean = self.n, self.mean
        if n == 0:
            return NO_VALUES
        if n == 1:
            return MeanEstimate(mean, math.nan, mean, mean, 1)
        if len(self._counts) == 1:
            return MeanEstimate(mean, 0.0, *interval_of_equals(mean, n), n)
        distinct = np.array(sorted(self._counts))
        counts = np.array([self._counts[value] for value in distinct.tolist()])
        variance = float(counts @ (distinct - mean) ** 2) / (n - 1)
        means = bootstrap_means(distinct, counts, np.random.default_rng(seed), resamples)
        return MeanEstimate(mean, math.sqrt(variance / n), *percentile_interval(means), n)


def running_interval(mean: float, n: int) -> tuple[float, float]:
    """A 95 % interval of the mean of values from 0 to 1, from the mean and their number alone.

    That of a proportion (Wilson, Probable inference, JASA 22, 1927). No values in [0, 1] with this
    mean vary more than zeros and ones do (Bhatia and Davis, Am. Math. Monthly 107, 2000), so it is
    rather too wide than too narrow.

    Args:
        mean: From 0 to 1.
        n: Number of values, at least 1.
    """
    share = _Z * _Z / n
    centre = (mean + share / 2) / (1 + share)
    half = _Z * math.sqrt(mean * (1 - mean) / n + share / (4 * n)) / (1 + share)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval_of_equals(value: float, n: int, lowest: float = 0.0) -> tuple[float, float]:
    """A 95 % interval of the mean where all n values are the same one, which leave no bootstrap.

    The share of other values is at most z^2 / (n + z^2), Wilson's upper limit for none of n; they
    may be anything between the lowest and 1.

    Args:
        value: The one.
        n: How often it was seen, at least 1.
        lowest: That a value can be.
    """
    others = running_interval(0.0, n)[1]
    seen = (1 - others) * value
    return seen + others * lowest, seen + others


def estimate_mean(values: pl.Series, *, seed: int = 0, resamples: int = RESAMPLES) -> MeanEstimate:
    """`ValueTally.estimate` of one series; nulls are left out."""
    tally = ValueTally()
    tally.add(values)
    return tally.estimate(seed=seed, resamples=resamples)


def bootstrap_means(
    distinct: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    generator: np.random.Generator,
    resamples: int,
) -> npt.NDArray[np.float64]:
    """Means of `resamples` resamples with replacement.

    How often each distinct value is drawn is multinomial, so the draw is made over the distinct
    values instead of over the rows.
    """
    n = int(counts.sum())
    return np.concatenate(
        [
            generator.multinomial(n, counts / n, size=size) @ distinct / n
            for size in blocks(resamples, len(distinct))
        ]
    )


def blocks(resamples: int, width: int, numbers: int | None = None) -> list[int]:
    """Parts of so many resamples of `width` numbers each, with about `numbers` in a part."""
    step = max(1, (numbers or _BLOCK_NUMBERS) // max(1, width))
    return [min(step, resamples - start) for start in range(0, resamples, step)]


def percentile_interval(resampled: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval that the middle of a bootstrap's resamples gives."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return float(low), float(high)

"""How many questions a difference needs to be detected."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from statistics import NormalDist

POWER, ALPHA = 0.8, 0.05

_quantile = NormalDist().inv_cdf


@dataclass(frozen=True, slots=True)
class PairedSpread:
    """How the differences of single questions scatter, as earlier runs show it.

    Attributes:
        variance: Of the paired differences.
        mean: Their mean, or None where the variance is that of the runs to come.
    """

    variance: float
    mean: float | None = None

    def at(self, difference: float) -> float:
        """The variance that a larger true difference has.

        What adds to the difference adds to the scatter too. It is counted as ties that become
        differences of 1: of a 0/1 metric, E[D^2] can grow by no more than E[D] does.
        """
        if self.mean is None or difference <= abs(self.mean):
            return self.variance
        return self.variance + self.mean**2 + difference - abs(self.mean) - difference**2


def questions_needed(
    spread: PairedSpread, difference: float, *, power: float = POWER, alpha: float = ALPHA
) -> int:
    """Questions with which a paired two-sided test finds a true difference with this probability.

    n = (z(1 - alpha/2) + z(power))^2 variance / difference^2 + z(1 - alpha/2)^2 / 2, rounded up.
    The last term stands for the t distribution that a variance of n values has.

    Source: Guenther, "Sample size formulas for normal theory t tests", The American Statistician
    35 (1981); without the last term also in Miller, "Adding Error Bars to Evals" (2024), section 5.

    Args:
        spread: Of single questions.
        difference: True mean difference, above 0 and at most 1.
        power: Probability to find it, above `alpha`.
        alpha: Probability to find one where there is none.
    """
    z = _quantile(1 - alpha / 2)
    return math.ceil((z + _quantile(power)) ** 2 * spread.at(difference) / difference**2 + z**2 / 2)


def detectable_difference(
    spread: PairedSpread, n: int, *, power: float = POWER, alpha: float = ALPHA
) -> float:
    """The smallest true difference for which `n` questions are enough, to 0.0001; NaN for none."""
    steps = range(1, 10_001)

    def is_enough(step: int) -> bool:
        return questions_needed(spread, step / 10_000, power=power, alpha=alpha) <= n

    place = bisect_left(steps, True, key=is_enough)
    return steps[place] / 10_000 if place < len(steps) else math.nan


def assumed_spread(variance: float, correlation: float) -> PairedSpread:
    """That of two runs, each as variable as one that is known.

    2 variance (1 - correlation), the correlation being that of both runs' values of a question.
    """
    return PairedSpread(2 * variance * (1 - correlation))

"""Confidence sequences for paired differences, valid at every look.

Each hypothesis "the mean difference is m" is bet against. While it is true the capital of the bets
stays at 1 on average, so it ever reaches 20 with a probability of at most 1/20 (Ville 1939): all m
that have not been brought there are an interval that holds the true mean at all looks together
with a probability of 95 %.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024),
with fixed bets of many sizes mixed in place of theirs, as in Cover's universal portfolio (1991):
which capital is reached then depends on how often each difference occurred, not on the order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slm_vllm.scoring.intervals import CONFIDENCE, MeanEstimate
from slm_vllm.scoring.paired import PairedComparison, Values, paired_differences

Decision = Literal["better", "worse", "no difference"]

# Shares of the capital that are risked. The best one is about the true distance over the variance,
# so these serve from a distance of 0.001 at a variance of 0.2 to the largest ones.
STAKES = np.geomspace(0.005, 0.95, 24)
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Sequence:
    """What is known of a mean difference so far, whenever that is.

    Attributes:
        mean: Of the differences, NaN for none.
        low: Lower end of the confidence sequence.
        high: Upper end.
        n: Number of differences.
    """

    mean: float
    low: float
    high: float
    n: int

    def decision(self, margin: float) -> Decision | None:
        """What is settled: a difference, or that there is none beyond the margin; None so far."""
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        return "no difference" if max(-self.low, self.high) < margin else None


def confidence_sequence(differences: Values, level: float = 1 - CONFIDENCE) -> Sequence:
    """All means that the bets have not ruled out.

    Args:
        differences: Of single questions, between -1 and 1; NaN is left out.
        level: Probability that the sequence ever leaves the true mean out, at most.
    """
    bets = _Bets(differences)
    if not bets.n:
        return Sequence(math.nan, -1.0, 1.0, 0)
    limit = -math.log(level)
    # The capital against the mean that was seen is at most 1, and it is convex in m.
    low = _boundary(bets, bets.mean, -1.0, limit)
    high = _boundary(bets, bets.mean, 1.0, limit)
    return Sequence(bets.mean, low, high, bets.n)


def always_valid_p_value(differences: Values) -> float:
    """A p-value of "the mean difference is 0" that holds at any look: 1 over the capital.

    Source: Ville's inequality; Ramdas et al., "Game-theoretic statistics and safe anytime-valid
    inference" (2023), section 2.
    """
    bets = _Bets(differences)
    return min(1.0, math.exp(-bets.log_capital(0.0))) if bets.n else math.nan


def estimate_stopped_difference(values: Values, baseline: Values) -> MeanEstimate:
    """`estimate_difference` of such runs; the interval is the confidence sequence."""
    differences = paired_differences(values, baseline)
    found = confidence_sequence(differences)
    stderr = float(differences.std(ddof=1)) / math.sqrt(found.n) if found.n > 1 else math.nan
    return MeanEstimate(found.mean, stderr, found.low, found.high, found.n)


def compare_stopped_pairs(values: Values, baseline: Values) -> PairedComparison:
    """`compare_pairs` for runs of which one was stopped when its figures were seen.

    The interval is the confidence sequence and the p-value holds at any look; McNemar's test, which
    takes the number of questions as given, is not made.
    """
    differences = paired_differences(values, baseline)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return PairedComparison(
        difference=estimate_stopped_difference(values, baseline),
        p_value=always_valid_p_value(differences),
        wins=wins,
        ties=len(differences) - wins - losses,
        losses=losses,
        mcnemar=None,
        is_always_valid=True,
    )


class _Bets:
    """The capital that bets on some differences have made."""

    def __init__(self, differences: Values) -> None:
        known = differences[~np.isnan(differences)]
        self.n = len(known)
        self._values, self._counts = np.unique(known, return_counts=True)
        self.mean = math.fsum(self._values * self._counts) / self.n if self.n else math.nan

    def log_capital(self, m: float) -> float:
        """Logarithm of the capital of all bets against a mean of m, half of them on either side.

        A bet that the mean is higher stakes s of the capital, which becomes 1 - s + s (1 + d) /
        (1 + m) times as much: 1 on average if the mean is m, and never below 0. That falls in m
        and is convex, as is the product over all d; bets on the other side mirror it.
        """
        up, down = (
            self._log_of_products((1 + side * self._values) / (1 + side * m)) for side in (1, -1)
        )
        return float(np.logaddexp.reduce(np.concatenate([up, down])) - math.log(2 * len(STAKES)))

    def _log_of_products(self, gains: Values) -> Values:
        stakes = STAKES[:, None]
        products: Values = np.log1p(stakes * (gains - 1)) @ self._counts
        return products


def _boundary(bets: _Bets, inside: float, outside: float, limit: float) -> float:
    """Where between a mean that is not ruled out and the end the capital passes the limit."""
    nearly = outside * (1 - 1e-9)
    if bets.log_capital(nearly) < limit:
        return outside
    while abs(nearly - inside) > _TOLERANCE:
        middle = (inside + nearly) / 2
        if bets.log_capital(middle) < limit:
            inside = middle
        else:
            nearly = middle
    return nearly

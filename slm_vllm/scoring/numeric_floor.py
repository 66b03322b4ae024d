"""How much of a difference the numerics of the machine can explain.

The same prompt can get another answer in another batch: sums are made in another order, and where
two tokens are nearly as likely the other one wins. Asking rows twice shows by how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from slm_vllm.scoring.intervals import CONFIDENCE, MeanEstimate
from slm_vllm.scoring.paired import Values, estimate_difference


@dataclass(frozen=True, slots=True)
class NumericChange:
    """How a metric moved between two passes over the same rows.

    Attributes:
        mean: Second minus first, with its bootstrap interval.
        mean_square: Of the changes c of single rows, (1 + sum(c^2)) / (1 + n); NaN for no rows.
            The 1s are one more row that changed altogether: few rows that happen not to change
            are no proof that none does.
    """

    mean: MeanEstimate
    mean_square: float


def numeric_change(first: Values, second: Values, *, seed: int = 0) -> NumericChange:
    """Compares two passes over the same rows; pairs with a NaN are left out."""
    changes = second - first
    changes = changes[~np.isnan(changes)]
    square = (1 + float((changes**2).sum())) / (1 + len(changes)) if len(changes) else math.nan
    return NumericChange(estimate_difference(second, first, seed=seed), square)


def numeric_floor(mean_square: float, n: int) -> float:
    """What another pass would move the mean of n questions by, in 95 of 100 cases at most.

    1.96 sqrt(E[c^2] / n), c being the change of a single question. Changes of one question are as
    likely up as down and say nothing about another's, so their mean has the variance E[c^2] / n
    (central limit theorem).

    Args:
        mean_square: See `NumericChange`.
        n: Questions that the mean is over.
    """
    return NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * math.sqrt(mean_square / n)

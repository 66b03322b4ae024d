"""Agreement of two graders: accuracy, confusion matrix, Cohen's kappa."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slm_vllm.json_text import json_number
from slm_vllm.scoring.intervals import running_interval

_DECIMALS = 12
_Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Agreement:
    """A grader against the labels.

    Attributes:
        labels: The categories, in the order of `confusion`.
        confusion: Rows: the label; columns: the grader. int64, shape (k, k).
        accuracy: Share of equal ones, NaN for no rows.
        kappa: Cohen's kappa; NaN where chance alone would agree always.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Rows.
    """

    labels: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    accuracy: float
    kappa: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN becomes null."""
        accuracy, kappa, low, high = map(
            json_number, (self.accuracy, self.kappa, self.low, self.high)
        )
        return {
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "accuracy": accuracy,
            "kappa": kappa,
            "kappa_ci95": [low, high],
            "n": self.n,
        }


def agreement(expected: Sequence[str], given: Sequence[str], labels: Sequence[str]) -> Agreement:
    """Sets a grader against labels, row by row.

    With p the confusion matrix over n, row sums r and column sums c, observed agreement
    po = sum p_ii and agreement by chance pe = sum r_i c_i:

        kappa = (po - pe) / (1 - pe)

    Its variance for large n is

        [ sum_i p_ii ((1 - pe) - (r_i + c_i)(1 - po))^2 + (1 - po)^2 sum_{i != j} p_ij (c_i + r_j)^2
          - (po pe - 2 pe + po)^2 ] / (n (1 - pe)^4)

    and its interval tanh(atanh(kappa) +- 1.96 standard errors / (1 - kappa^2)): Fisher's
    transformation, without which intervals near 1 hold 83 % at 50 rows. A kappa of 1 or -1 has no
    variance; the other end is the kappa with as many other grades as Wilson's interval allows for
    none of n.

    Source: Cohen, "A coefficient of agreement for nominal scales" (1960); Fleiss, Cohen and
    Everitt, "Large sample standard errors of kappa and weighted kappa" (1969); Fisher, "On the
    'probable error' of a coefficient of correlation" (1921) for the transformation.

    Args:
        expected: The labels.
        given: What the grader said, in the same order.
        labels: All categories; both hold nothing else.
    """
    place = {label: number for number, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for one, other in zip(expected, given, strict=True):
        confusion[place[one], place[other]] += 1
    n = int(confusion.sum())
    accuracy = float(np.trace(confusion)) / n if n else math.nan
    return Agreement(tuple(labels), confusion, accuracy, *_kappa(confusion, n), n)


def _kappa(confusion: npt.NDArray[np.int64], n: int) -> tuple[float, float, float]:
    if n == 0:
        return math.nan, math.nan, math.nan
    p = confusion / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, chance = float(np.trace(p)), float(rows @ columns)
    if math.isclose(chance, 1.0):  # one category alone: there is nothing to agree on
        return math.nan, math.nan, math.nan
    kappa = (observed - chance) / (1.0 - chance)
    equal = np.diag(p) @ ((1.0 - chance) - (rows + columns) * (1.0 - observed)) ** 2
    others = p * (columns[:, None] + rows[None, :]) ** 2
    unequal = (1.0 - observed) ** 2 * (others.sum() - np.trace(others))
    last = (observed * chance - 2.0 * chance + observed) ** 2
    variance = max(0.0, _rounded(equal + unequal - last)) / (n * (1.0 - chance) ** 4)
    unseen = running_interval(0.0, n)[1] / (1.0 - chance)
    if math.isclose(abs(kappa), 1.0):
        low, high = (1.0 - unseen, 1.0) if kappa > 0 else (-1.0, unseen - 1.0)
    else:
        half = _Z * math.sqrt(variance) / (1.0 - kappa**2)
        low, high = (math.tanh(math.atanh(kappa) + side * half) for side in (-1, 1))
    return _rounded(kappa), _rounded(max(-1.0, low)), _rounded(min(1.0, high))


def _rounded(value: float) -> float:
    return round(value, _DECIMALS) + 0.0  # the sum turns a negative zero into the other one

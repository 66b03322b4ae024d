"""Calibration of confidence, and the effect of abstaining."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from slm_vllm.scoring.intervals import MeanEstimate, estimate_share
from slm_vllm.scoring.paired import Values

BINS = 10
_COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        low: Their confidence is above it (that of the first bin: at least).
        high: And at most this.
        n: Their number.
        confidence: Their mean confidence, NaN for none.
        accuracy: Share of them that is right, NaN for none.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Abstention:
    """What is left where a model answers with at least this confidence only.

    Attributes:
        threshold: The confidence.
        coverage: Share of the questions that are still answered.
        accuracy: Share of the answers that is right, with its interval.
    """

    threshold: float
    coverage: float
    accuracy: MeanEstimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence against being right.

    Attributes:
        n: Answers.
        accuracy: Share that is right.
        confidence: Mean confidence; above the accuracy the model is too sure.
        ece: Expected calibration error over `bins`.
        brier: Mean squared error of the confidence.
        aurc: Area under the risk-coverage curve; of a confidence that tells nothing 1 - accuracy.
        bins: Ten of equal width.
        abstentions: The risk-coverage curve at ten coverages; accuracy is 1 - risk.
    """

    n: int
    accuracy: float
    confidence: float
    ece: float
    brier: float
    aurc: float
    bins: tuple[Bin, ...]
    abstentions: tuple[Abstention, ...]


def calibration(confidence: Values, right: Values) -> Calibration | None:
    """All figures of some answers; None for no answer.

    Args:
        confidence: Of each answer, from 0 to 1.
        right: 1 or 0.
    """
    n = len(confidence)
    if not n:
        return None
    bins = calibration_bins(confidence, right)
    gaps = [one.n * abs(one.accuracy - one.confidence) for one in bins if one.n]
    return Calibration(
        n=n,
        accuracy=float(right.mean()),
        confidence=float(confidence.mean()),
        # Naeini et al. (2015), Guo et al., "On Calibration of Modern Neural Networks" (2017).
        ece=math.fsum(gaps) / n,
        # Brier, "Verification of forecasts expressed in terms of probability" (1950).
        brier=float(((confidence - right) ** 2).mean()),
        aurc=area_under_risk_coverage(confidence, right),
        bins=bins,
        abstentions=abstentions(confidence, right),
    )


def calibration_bins(confidence: Values, right: Values) -> tuple[Bin, ...]:
    """Bins of equal width from 0 to 1; what lies on an edge belongs to the lower one."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    places = np.searchsorted(edges[1:-1], confidence)
    found = []
    for number in range(BINS):
        inside = places == number
        n = int(inside.sum())
        found.append(
            Bin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                n=n,
                confidence=float(confidence[inside].mean()) if n else math.nan,
                accuracy=float(right[inside].mean()) if n else math.nan,
            )
        )
    return tuple(found)


def area_under_risk_coverage(confidence: Values, right: Values) -> float:
    """Mean over i of the share of wrong answers among the i most confident ones.

    Answers of equal confidence count as in a random order.

    Source: Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers" (2019).
    """
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=1.0 - right)
    # Up to each place: the wrong ones of the groups before it, and its share of its own group's.
    share = np.repeat(wrong / size, size)
    answered = np.arange(1, len(confidence) + 1)
    return float((np.cumsum(share) / answered).mean())


def abstentions(confidence: Values, right: Values) -> tuple[Abstention, ...]:
    """The risk-coverage curve where at least 100, 90, ... 10 % are answered; each point once."""
    ordered = np.sort(confidence)[::-1]
    places = [math.ceil(coverage * len(ordered)) - 1 for coverage in _COVERAGES]
    found = []
    for threshold in dict.fromkeys(float(ordered[place]) for place in places):
        kept = right[confidence >= threshold]
        accuracy = estimate_share(int(kept.sum()), len(kept))
        found.append(Abstention(threshold, len(kept) / len(right), accuracy))
    return tuple(found)

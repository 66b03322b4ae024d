"""Means with their 95 % intervals, and p-values, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from slm_vllm.scoring.intervals import MeanEstimate


def estimate_text(estimate: MeanEstimate, *, signed: bool = False) -> str:
    """The mean and its interval, which one question has none of; "-" for no questions."""
    sign = "+" if signed else ""
    if estimate.n == 1:
        return f"{estimate.mean:{sign}.3f}"
    return _text(estimate.mean, estimate.low, estimate.high, sign)


def metric_text(metric: Mapping[str, Any] | None) -> str:
    """The same of a metric in `results.json`; an older run may lack it."""
    if metric is None or metric["mean"] is None:
        return "-"
    if metric["n"] == 1:
        return f"{metric['mean']:.3f}"
    return _text(metric["mean"], *metric["ci95"])


def p_text(value: float) -> str:
    """A p-value; "-" for NaN."""
    if math.isnan(value):
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _text(mean: float, low: float, high: float, sign: str = "") -> str:
    return "-" if math.isnan(mean) else f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

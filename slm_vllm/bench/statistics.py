"""Medians, spread and percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest and largest of the repeats, and all of them."""
    return {
        "median": round(float(np.median(values)), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "all": [round(value, 4) for value in values],
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, 90th and 99th percentile, by linear interpolation."""
    found = np.percentile(values, [50, 90, 99])
    return dict(zip(("p50", "p90", "p99"), (round(float(v), 4) for v in found), strict=True))

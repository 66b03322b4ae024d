from __future__ import annotations

import math

import pytest

from slm_vllm.reporting.estimates import estimate_text
from slm_vllm.scoring.intervals import MeanEstimate

NAN = math.nan


@pytest.mark.parametrize(
    ("estimate", "signed", "said"),
    [
        (MeanEstimate(0.25, 0.1, 0.05, 0.45, 9), True, "+0.250 [+0.050, +0.450]"),
        (MeanEstimate(-0.25, 0.1, -0.45, -0.05, 9), False, "-0.250 [-0.450, -0.050]"),
        # No resample of one question differs from it: an interval would look like certainty.
        (MeanEstimate(1.0, NAN, 1.0, 1.0, 1), True, "+1.000"),
        (MeanEstimate(NAN, NAN, NAN, NAN, 0), True, "-"),
    ],
)
def test_a_mean_as_text(estimate: MeanEstimate, signed: bool, said: str) -> None:
    assert estimate_text(estimate, signed=signed) == said

"""Where another metric says something else of two runs than the main one does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slm_vllm.reporting.alignment import AlignedRuns
from slm_vllm.scoring.intervals import MeanEstimate
from slm_vllm.scoring.metrics import MAIN, in_tables
from slm_vllm.scoring.paired import Values, estimate_difference, sign_flip_p_value
from slm_vllm.scoring.sequential import always_valid_p_value, estimate_stopped_difference

# A difference of fewer standard errors is not tested: its p-value would not be a small one.
_LEAST_Z = 2.0


@dataclass(frozen=True, slots=True)
class Dissent:
    """A metric that does not follow the main one.

    Attributes:
        label: The metric's.
        difference: Of the same two runs, in the same direction.
        is_clear: Whether it differs from 0, corrected for all pairs of the report (Bonferroni).
    """

    label: str
    difference: MeanEstimate
    is_clear: bool


def other_values(aligned: AlignedRuns) -> dict[str, Values]:
    """The metrics of tables but the main one, by name: runs x questions, NaN for unscored."""
    names = [metric.name for metric in in_tables() if metric.name != MAIN]
    ids = aligned.question_ids.alias("question_id").to_frame()
    frames = [
        ids.join(
            run.predictions.select("question_id", *names),
            on="question_id",
            how="left",
            maintain_order="left",
        )
        for run in aligned.runs
    ]
    return {
        name: np.stack([frame[name].to_numpy().astype(np.float64) for frame in frames])
        for name in names
    }


def dissents(
    values: Mapping[str, Values],
    run: int,
    against: int,
    main: MeanEstimate,
    *,
    main_is_clear: bool,
    significance: float,
    is_always_valid: bool,
    seed: int,
) -> tuple[Dissent, ...]:
    """The metrics that dissent.

    Where the main one tells two runs apart, they are those of the other sign; where it does not,
    those that do.

    Args:
        values: See `other_values`.
        run: Position of the run.
        against: Position of the one it is compared with.
        main: The difference in the main metric.
        main_is_clear: Whether that differs from 0.
        significance: Of one test, corrected by the caller for the number of pairs.
        is_always_valid: Whether one of the runs was stopped when its figures were seen.
        seed: Of the resampling.
    """
    found = []
    for metric in in_tables():
        if metric.name == MAIN:
            continue
        ours, theirs = values[metric.name][run], values[metric.name][against]
        differences = (ours - theirs)[np.isfinite(ours - theirs)]
        mean = float(differences.mean()) if len(differences) else 0.0
        stderr = float(differences.std()) / math.sqrt(len(differences)) if len(differences) else 0.0
        stands_out = abs(mean) > _LEAST_Z * stderr
        is_opposite = main_is_clear and mean * main.mean < 0
        if not is_opposite and (main_is_clear or not stands_out):
            continue
        if is_always_valid:
            p = always_valid_p_value(differences)
        else:
            p = sign_flip_p_value(differences, seed=seed) if stands_out else 1.0
        if is_opposite or p < significance:
            estimate = (
                estimate_stopped_difference(ours, theirs)
                if is_always_valid
                else estimate_difference(ours, theirs, seed=seed)
            )
            found.append(Dissent(metric.label, estimate, p < significance))
    return tuple(found)

"""Differences that are no larger than what the machine's numerics move a run by."""

from __future__ import annotations

from slm_vllm.rundir.reading import RunData
from slm_vllm.scoring.intervals import MeanEstimate
from slm_vllm.scoring.numeric_floor import numeric_floor


def floor_notes(
    run: RunData, baseline: RunData, difference: MeanEstimate, metric: str
) -> list[str]:
    """A sentence for each of two runs whose numeric floor the difference does not leave.

    Args:
        run: The one compared.
        baseline: The other.
        difference: Between them, over the questions they share.
        metric: Of which it is.
    """
    notes = []
    for one in (run, baseline):
        floor = floor_of(one, metric, difference.n)
        if floor is not None and abs(difference.mean) <= floor:
            notes.append(
                f"The difference of {difference.mean:+.4f} between {run.name} and {baseline.name} "
                f"is within the numeric floor of {one.name} ({floor:.4f} over {difference.n} "
                "questions)."
            )
    return notes


def floor_of(run: RunData, metric: str, n: int) -> float | None:
    """The numeric floor of a run over n questions; None where it was not looked for."""
    check = run.results.get("repeat_check")
    if check is None or metric not in check["metrics"] or not n:
        return None
    square = check["metrics"][metric]["mean_square"]
    return None if square is None else numeric_floor(square, n)

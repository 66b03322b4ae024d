"""What context did to a model's answers, against its own closed-book and oracle runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from slm_vllm.reporting.alignment import AlignedRuns
from slm_vllm.reporting.config_diff import flat_settings
from slm_vllm.reporting.context_role import Role, context_of, role_of
from slm_vllm.rundir.reading import RunData
from slm_vllm.scoring.intervals import MeanEstimate
from slm_vllm.scoring.paired import Values, estimate_difference
from slm_vllm.scoring.sequential import estimate_stopped_difference

_OTHER_SECTIONS = ("experiment.", "experiment_mode.", "retriever.", "dataset.")


@dataclass(frozen=True, slots=True)
class AnswerChanges:
    """Answers with context against answers without, over some of the questions.

    A right answer is one with a value of 1: all of its words are there, for token recall.

    Attributes:
        questions: "all", "hit" (a passage with an answer went into the prompt) or "miss".
        n: Questions that are scored in both runs.
        gain: Mean difference, with context minus closed book.
        right_closed_book: Right without context.
        destroyed: Right without context and wrong with it.
        gained: Wrong without context and right with it.
    """

    questions: str
    n: int
    gain: MeanEstimate
    right_closed_book: int
    destroyed: int
    gained: int


@dataclass(frozen=True, slots=True)
class ContextEffect:
    """A run with context against the runs of the same model over the same questions.

    Attributes:
        run: Name of the run.
        closed_book: Name of the model's run without context, None if there is none.
        oracle: Name of its oracle run, None if there is none or this is one.
        oracle_gap: Mean difference, oracle minus this run.
        changes: Over all questions, then by retrieval hit where that is known; empty without
            a closed-book run.
        is_always_valid: One of the runs was stopped, so intervals are confidence sequences.
    """

    run: str
    closed_book: str | None
    oracle: str | None
    oracle_gap: MeanEstimate | None
    changes: tuple[AnswerChanges, ...]
    is_always_valid: bool = False


def context_effects(aligned: AlignedRuns, *, seed: int) -> tuple[list[ContextEffect], list[str]]:
    """The effects of all runs with context, and notes about runs that were paired loosely."""
    effects, notes = [], []
    for number, run in enumerate(aligned.runs):
        role = role_of(run)
        if role == "closed book":
            continue
        closed = _nearest_run(aligned.runs, run, "closed book")
        oracle = None if role == "bound" else _nearest_run(aligned.runs, run, "bound")
        if closed is None and oracle is None:
            continue
        for other in (closed, oracle):
            if other is not None and (differing := _differing(run, aligned.runs[other])):
                notes.append(
                    f"{run.name} is compared with {aligned.runs[other].name}, but they differ in "
                    f"{', '.join(differing)}."
                )
        if closed is not None:
            notes += _several_answers(run, aligned.runs[closed])
        values = aligned.values
        is_stopped = aligned.are_stopped(number, *(n for n in (closed, oracle) if n is not None))
        estimate = (
            estimate_stopped_difference if is_stopped else partial(estimate_difference, seed=seed)
        )
        effects.append(
            ContextEffect(
                run=run.name,
                closed_book=None if closed is None else aligned.runs[closed].name,
                oracle=None if oracle is None else aligned.runs[oracle].name,
                oracle_gap=None if oracle is None else estimate(values[oracle], values[number]),
                changes=()
                if closed is None
                else _changes(values[number], values[closed], aligned.hits[number], estimate),
                is_always_valid=is_stopped,
            )
        )
    return effects, list(dict.fromkeys(notes))


def _changes(
    with_context: Values,
    closed_book: Values,
    hits: Values | None,
    estimate: Callable[[Values, Values], MeanEstimate],
) -> tuple[AnswerChanges, ...]:
    everything = np.ones(len(with_context), dtype=np.bool_)
    parts: list[tuple[str, npt.NDArray[np.bool_]]] = [("all", everything)]
    if hits is not None:
        parts += [("hit", hits == 1.0), ("miss", hits == 0.0)]
    changes = []
    for name, chosen in parts:
        scored = chosen & ~np.isnan(with_context) & ~np.isnan(closed_book)
        context, closed = with_context[scored], closed_book[scored]
        changes.append(
            AnswerChanges(
                questions=name,
                n=int(scored.sum()),
                gain=estimate(context, closed),
                right_closed_book=int((closed == 1.0).sum()),
                destroyed=int(((closed == 1.0) & (context != 1.0)).sum()),
                gained=int(((closed != 1.0) & (context == 1.0)).sum()),
            )
        )
    return tuple(changes)


def _several_answers(*runs: RunData) -> list[str]:
    """What "right" means of runs that have several answers to a question."""
    several = [run.name for run in runs if "sampling" in run.results]
    return [f"Right answers of {name} are questions of which all answers are." for name in several]


def _nearest_run(runs: Sequence[RunData], run: RunData, role: Role) -> int | None:
    """Position of the run of the same model whose settings are nearest, None for no run.

    A mode of a plug-in that shows some of the gold contexts is a bound after the oracle.
    """

    def distance(number: int) -> tuple[bool, int]:
        other = runs[number]
        return context_of(other) != "oracle", len(_differing(run, other))

    candidates = [
        number
        for number, other in enumerate(runs)
        if role_of(other) == role and other.results["model"] == run.results["model"]
    ]
    return min(candidates, key=distance, default=None)


def _differing(run: RunData, other: RunData) -> list[str]:
    """Settings of the model, prompt, generation and engine that are not the same."""
    one, two = flat_settings(run), flat_settings(other)
    return [
        key
        for key in dict.fromkeys((*one, *two))
        if not key.startswith(_OTHER_SECTIONS) and one.get(key) != two.get(key)
    ]

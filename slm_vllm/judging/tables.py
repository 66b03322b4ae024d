"""Judgements as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slm_vllm.judging.verdict import WITHOUT_GRADE
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.scoring.metrics import JUDGED
from slm_vllm.text_table import text_table


def judgements_table(judgements: Sequence[Mapping[str, Any]]) -> str:
    """One line for each run: the five figures with their intervals.

    Args:
        judgements: Contents of `judgement.json`, each with the `name` of its run.
    """
    header = ["run", *(metric.label for metric in JUDGED.values()), "n"]
    rows = [
        [
            str(one["name"]),
            *(metric_text(one["metrics"].get(name)) for name in JUDGED),
            str(one["metrics"]["judge_correct"]["n"]),
        ]
        for one in judgements
    ]
    notes = [f"Judge: {said}" for said in dict.fromkeys(map(judge_text, judgements))]
    notes += [note for one in judgements if (note := _note(one))]
    return "\n".join([text_table(header, rows), *notes])


def judge_text(judgement: Mapping[str, Any]) -> str:
    """Who judged, in a line."""
    judge = judgement["judge"]
    votes = f", {judge['votes']} votes" if judge["votes"] > 1 else ""
    return f"{judge['model']}, prompt {judge['prompt_version']}{votes}"


def _note(judgement: Mapping[str, Any]) -> str:
    counts = judgement["counts"]
    said = [f"{counts[name]} {text}" for name, text in WITHOUT_GRADE.items() if counts[name]]
    if said:
        graded = judgement["metrics"]["judge_correct"]["n"]
        said[-1] += f"; the figures are of the other {graded} of {counts['total']} answers"
    if counts["empty"]:
        said.append(f"{counts['empty']} empty answers, not attempted without asking")
    return f"{judgement['name']}: {', '.join(said)}" if said else ""

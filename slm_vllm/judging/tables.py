"""Judgements as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from slm_vllm.judging.verdict import WITHOUT_GRADE
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.rundir.judgement import NamedJudgement, judge_text
from slm_vllm.scoring.metrics import JUDGED
from slm_vllm.text_table import text_table


def judgements_table(judgements: Sequence[NamedJudgement]) -> str:
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
    notes = [f"{one['name']}: judged by {judge_text(one)}" for one in judgements]
    notes += [note for one in judgements if (note := _note(one))]
    return "\n".join([text_table(header, rows), *notes])


def _note(judgement: NamedJudgement) -> str:
    counts = judgement["counts"]
    said = [f"{counts[name]} {text}" for name, text in WITHOUT_GRADE.items() if counts[name]]
    if counts["empty"]:
        said.append(f"{counts['empty']} empty answers, not attempted without asking")
    return f"{judgement['name']}: {', '.join(said)}" if said else ""

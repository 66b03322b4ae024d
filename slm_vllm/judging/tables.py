"""Judgements as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from slm_vllm.judging.check import Check
from slm_vllm.judging.verdict import WITHOUT_GRADE
from slm_vllm.reporting.estimates import metric_text
from slm_vllm.rundir.judgement import NamedJudgement, judge_text
from slm_vllm.scoring.agreement import Agreement
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
    parts = _without_grade(counts)
    if counts["empty"]:
        parts.append(f"{counts['empty']} empty answers, not attempted without asking")
    return f"{judgement['name']}: {', '.join(parts)}" if parts else ""


def _without_grade(counts: Mapping[str, int]) -> list[str]:
    """How many rows got no grade, by reason."""
    return [f"{counts[name]} {text}" for name, text in WITHOUT_GRADE.items() if counts[name]]


def check_table(check: Check) -> str:
    """A check for the terminal: agreement of each grader, then what the judge confused."""
    header = ["grader", "against", "grades", "n", "accuracy", "kappa"]
    rows = [
        [
            one.grader,
            one.against,
            str(one.grades),
            str(one.found.n),
            "-" if math.isnan(one.found.accuracy) else f"{one.found.accuracy:.3f}",
            _kappa(one.found),
        ]
        for one in check.compared
    ]
    parts = [text_table(header, rows)]
    if check.judge is not None and check.counts is not None:
        own = check.compared[0].found
        confusion = [
            [label, *map(str, line)]
            for label, line in zip(own.labels, own.confusion.tolist(), strict=True)
        ]
        parts.append(text_table(["label \\ judge", *own.labels], confusion))
        if check.groups:
            groups = [[value, str(n), f"{share:.3f}"] for _, value, n, share in check.groups]
            parts.append(text_table(["of the judge", "n", "accuracy"], groups))
        note = ", ".join(_without_grade(check.counts))
        parts.append(
            f"Judge: {check.judge['model']}, prompt {check.judge['prompt_version']}, "
            f"votes {check.judge['votes']}; {own.n} of {check.rows} rows have a grade"
            + (f" ({note})" if note else "")
        )
    return "\n\n".join(parts)


def _kappa(found: Agreement) -> str:
    if math.isnan(found.kappa):
        return "-"
    return f"{found.kappa:.3f} [{found.low:.3f}, {found.high:.3f}]"

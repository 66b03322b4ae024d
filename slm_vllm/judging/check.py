"""Compares a judge, and graders without a model, with human labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.config.schema import Config
from slm_vllm.judging.ballot import Ballot
from slm_vllm.judging.baselines import JUDGE, Compared, baselines, grade_agreement
from slm_vllm.judging.judge import Case
from slm_vllm.judging.labelled import GROUPS
from slm_vllm.judging.prompt import read_reply
from slm_vllm.judging.session import JudgeOptions, check_votes, judge_services, open_judge
from slm_vllm.judging.verdict import grade_counts
from slm_vllm.rundir.judgement import ANSWER_COLUMNS
from slm_vllm.runs.auxiliary import AuxiliaryRequests
from slm_vllm.types import Completion


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found.

    Attributes:
        rows: Rows with labels.
        compared: The judge first, where there is one.
        groups: The judge's accuracy by `GROUPS`: column, value, rows, accuracy.
        judge: Its identity, None without a judge.
        counts: Its rows by grade, and without one.
    """

    rows: int
    compared: tuple[Compared, ...]
    groups: tuple[tuple[str, str, int, float], ...] = ()
    judge: dict[str, Any] | None = None
    counts: dict[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "rows": self.rows,
            "judge": self.judge,
            "counts": self.counts,
            "agreement": [one.to_json() for one in self.compared],
            "groups": [
                {"column": column, "value": value, "n": n, "accuracy": round(accuracy, 6)}
                for column, value, n, accuracy in self.groups
            ],
        }


def check_baselines(rows: pl.DataFrame) -> Check:
    """Graders that are no model, against the labels.

    Args:
        rows: See `read_labelled`.
    """
    return Check(rows.height, tuple(baselines(rows, "label", "labels")))


def check_judge(rows: pl.DataFrame, config: Config, options: JudgeOptions) -> Check:
    """A judge against the labels, and all that can do without it against both.

    Args:
        rows: See `read_labelled`.
        config: The judge, see `Judge`.
        options: How it is asked.

    Raises:
        SlmVllmError: What the user has to fix.
        Interrupted: A signal stopped it; replies are in the judge's cache.
    """
    check_votes(options.votes)
    with judge_services(options) as services:
        cache = Path(config.cache_dir)
        cache.mkdir(parents=True, exist_ok=True)
        judge = open_judge(config, options, cache, services)
        ballot = Ballot(rows.select(ANSWER_COLUMNS), options.votes)
        judge.prepare(ballot.cases())
        replies: dict[int, tuple[str | None, bool]] = {}

        def record(key: int, case: Case, reply: Completion) -> None:
            grade = None if reply.error else read_reply(reply.text, case.vote)
            replies[key] = (grade, reply.error is not None)

        cases = {judge.key(case): case for case in ballot.cases()}
        AuxiliaryRequests(judge, services, "labelled answers", record, Counter()).ask(cases)
        grades = ballot.grades(judge, replies)
        identity = judge.identity | {"votes": options.votes}
    graded = rows.with_columns(grades["grade"], grades["undecided"])
    known = graded.filter(pl.col("grade").is_not_null())
    own = Compared(JUDGE, "labels", 3, grade_agreement(known["label"], known["grade"]))
    without_judge = check_baselines(rows)
    return replace(
        without_judge,
        compared=(own, *without_judge.compared, *baselines(known, "grade", JUDGE)),
        groups=tuple(_groups(known)),
        judge=identity,
        counts=grade_counts(grades),
    )


def _groups(known: pl.DataFrame) -> list[tuple[str, str, int, float]]:
    found = []
    equal = pl.col("label") == pl.col("grade")
    for column in GROUPS:
        if column in known.columns:
            table = known.group_by(column, maintain_order=True).agg(pl.len(), equal.mean())
            found += [(column, *row) for row in table.iter_rows()]
    return found

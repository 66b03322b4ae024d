"""A judge's files in a run folder: journal, grades, figures.

A judgement is beside the run and changes none of its files. It belongs to the answers it was made
of: their digest is kept with it, and where they have changed since, it is not used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import polars as pl

from slm_vllm.errors import first_line
from slm_vllm.json_text import encode_bytes
from slm_vllm.rundir import names
from slm_vllm.rundir.files import damaged, read_object
from slm_vllm.rundir.predictions import read_predictions
from slm_vllm.scoring.grades import GRADES, NOT_ATTEMPTED

if TYPE_CHECKING:
    from slm_vllm.scoring.intervals import Mean

REPLIES_SCHEMA = pl.Schema(
    {
        "key": pl.String(),
        "question_id": pl.String(),  # of the first row with this content
        "vote": pl.Int64(),
        "grade": pl.String(),  # null where the reply could not be read
        "reply": pl.String(),
        "finish_reason": pl.String(),
        "n_prompt_tokens": pl.Int64(),
        "n_completion_tokens": pl.Int64(),
        "error": pl.String(),
    }
)

GRADES_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "grade": pl.String(),  # null where there is none
        "undecided": pl.String(),  # why there is none: "tie", "unread", "failed", "unscored"
        "votes": pl.List(pl.String),  # those that were read, in their order
    }
)
"""One row for each prediction, in the order of `predictions.parquet`."""

_NEARLY_ALL, _FEW = 0.9, 20

ANSWER_COLUMNS = ("question_id", "question", "answers", "prediction", "error")
"""What a judge reads of the predictions."""


class _Agreement(TypedDict, total=False):
    agreement: list[dict[str, Any]]


class Judgement(_Agreement):
    """`judgement.json`.

    Attributes:
        judge: Who judged: model, revision, prompt version and hash, votes, and the `fingerprint`
            of all that its grades depend on.
        created: When, in ISO 8601.
        answers: Digest of the answers that were judged.
        counts: Rows: total, of each grade, without one and why; replies: asked, resumed ...
        metrics: Figures, as in `results.json`.
        agreement: Of graders that are no model with the judge.
    """

    judge: dict[str, Any]
    created: str
    slm_vllm: str
    answers: str
    counts: dict[str, int]
    metrics: dict[str, Mean]


class NamedJudgement(Judgement):
    """A judgement with the name of its run."""

    name: str


def answers_digest(predictions: pl.DataFrame) -> str:
    """A hash of all that a judgement of these rows is about.

    Args:
        predictions: The columns `ANSWER_COLUMNS`.
    """
    found = hashlib.sha256()
    for row in predictions.select(ANSWER_COLUMNS).iter_rows():
        found.update(encode_bytes(row))
    return found.hexdigest()


def current_judgement(folder: Path) -> Judgement | None:
    """The judgement of the answers that are there now; None for none, or one of other answers.

    Raises:
        DataError: A file is damaged.
        StorageError: It may not be read.
    """
    found = read_judgement(folder)
    if found is None:
        return None
    rows = read_predictions(folder / names.PREDICTIONS, ANSWER_COLUMNS)
    return found if found["answers"] == answers_digest(rows) else None


def judge_text(judgement: Judgement) -> str:
    """Who judged, and how much of it counts, in a line."""
    judge, counts = judgement["judge"], judgement["counts"]
    graded = judgement["metrics"]["judge_correct"]["n"]
    votes = f", {judge['votes']} votes" if judge["votes"] > 1 else ""
    without = f", {counts['total'] - graded} without a grade" if graded < counts["total"] else ""
    return (
        f"{judge['model']}, prompt {judge['prompt_version']}{votes}{without}{_one_sided(judgement)}"
    )


def _one_sided(judgement: Judgement) -> str:
    """Says where nearly all answers got one grade by one vote, which may be a judge's habit."""
    counts = judgement["counts"]
    grades = {grade: counts[grade] for grade in GRADES}
    grades[NOT_ATTEMPTED] -= counts.get("empty", 0)  # nobody was asked about these
    n, most = sum(grades.values()), max(grades, key=lambda grade: grades[grade])
    if judgement["judge"]["votes"] > 1 or n < _FEW or grades[most] < _NEARLY_ALL * n:
        return ""
    return (
        f", which called {grades[most]} of {n} {most.replace('_', ' ')} by one vote each: it may "
        "like that letter, which --votes 3 shows"
    )


def read_judgement(folder: Path) -> Judgement | None:
    """The figures of the judge, None where no judge was asked or it has not come to its end.

    Raises:
        DataError: The file is damaged.
        StorageError: It may not be read.
    """
    content = read_object(folder / names.JUDGEMENT)
    if content is None or not (folder / names.GRADES).exists():
        return None
    if not Judgement.__required_keys__ <= {*content}:
        raise damaged(folder / names.JUDGEMENT, "it has not all that a judgement has")
    return cast(Judgement, content)


def read_grades(folder: Path) -> pl.DataFrame:
    """The grades of all rows, see `GRADES_SCHEMA`.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / names.GRADES
    try:
        frame = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(path, first_line(error)) from None
    if frame.schema != GRADES_SCHEMA:
        raise damaged(path, "its columns are others")
    return frame

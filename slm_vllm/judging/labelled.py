"""Labelled answers: the shipped ones, or a user's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.file_dataset import DUPLICATE
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.errors import DataError
from slm_vllm.scoring.grades import CORRECT, INCORRECT, NOT_ATTEMPTED
from slm_vllm.types import RejectedRow

SHIPPED = "labelled"
GROUPS = ("language", "kind")
"""Columns by which figures are broken down where a file has them."""

_PREDICTION = ("prediction", "predicted_answer", "model_answer", "response")
_LABEL = ("label", "grade", "human_label", "human_grade")
_GRADES = {
    CORRECT: ("correct", "a", "true", "1", "right", "yes"),
    INCORRECT: ("incorrect", "b", "false", "0", "wrong", "no"),
    NOT_ATTEMPTED: ("not attempted", "c", "not_attempted", "not-attempted"),
}
_MEANING = {word: grade for grade, words in _GRADES.items() for word in words}


def read_labelled(file: str) -> pl.DataFrame:
    """Rows with labels.

    Args:
        file: `labelled` for the shipped 300, or a file of any form that datasets have, with the
            columns question, answers, prediction and label beside others.

    Returns:
        The columns `ANSWER_COLUMNS`, `label` (one of `GRADES`) and those of `GROUPS` there are.

    Raises:
        DataError: The file cannot be read, a row lacks a prediction or a label, or one cannot be
            used: figures over the others would not be those of the file.
    """
    path = Path(__file__).with_name("labelled_answers.jsonl") if file == SHIPPED else Path(file)
    rows: list[dict[str, Any]] = []
    for frame in open_dataset(None, str(path), on_reject=_refuse).scan(with_documents=False):
        for row in frame.iter_rows(named=True):
            others = json.loads(row["metadata"]) if row["metadata"] else {}
            rows.append(
                {
                    **{name: row[name] for name in ("question_id", "question", "answers")},
                    "prediction": _text(_first(others, _PREDICTION, path, row)),
                    "error": None,
                    "label": _grade(_first(others, _LABEL, path, row), path, row),
                    **{name: _text(others[name]) for name in GROUPS if name in others},
                }
            )
    schema = {"error": pl.String, "prediction": pl.String}
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def _refuse(row: RejectedRow) -> None:
    advice = ""
    if row.reason.startswith(DUPLICATE):
        advice = (
            ". Where a question stands with several predictions, give each row a question_id of "
            "its own"
        )
    raise DataError(f"{row.path}, line {row.line}: {row.reason}{advice}")


def _first(
    others: Mapping[str, Any], names: tuple[str, ...], path: Path, row: Mapping[str, Any]
) -> Any:
    for name in names:
        if name in others:
            return others[name]
    raise DataError(
        f"{path}: row {row['question_id']} has no {names[0]}. Beside question and answers a row "
        f"needs a column {' or '.join(names)}; found beside those: {', '.join(others) or 'nothing'}"
    )


def _grade(label: Any, path: Path, row: Mapping[str, Any]) -> str:
    found = _MEANING.get(_text(label).strip().lower())
    if found is None:
        raise DataError(
            f"{path}: row {row['question_id']} has the label {label!r}. A label is correct, "
            "incorrect or not attempted (also A, B, C as SimpleQA has them; true, false)"
        )
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)

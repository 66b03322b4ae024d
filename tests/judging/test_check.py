"""Judges of known quality against labels."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from slm_vllm.cli.judge import command
from slm_vllm.config.schema import Config
from slm_vllm.errors import DataError
from slm_vllm.judging.baselines import PHRASES
from slm_vllm.judging.check import Check, check_baselines, check_judge
from slm_vllm.judging.labelled import SHIPPED, read_labelled
from slm_vllm.judging.session import JudgeOptions
from slm_vllm.judging.tables import check_table
from slm_vllm.scoring.grades import GRADES
from support.qa_files import write_rows
from support.scripted_judge import Grader, ScriptedJudge


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return read_labelled(SHIPPED)


@pytest.fixture(scope="module")
def labels(rows: pl.DataFrame) -> dict[tuple[str, str], str]:
    columns = rows.select("question", "prediction", "label")
    return {(question, answer): label for question, answer, label in columns.iter_rows()}


def checked(rows: pl.DataFrame, config: Config, grade: Grader, votes: int = 1) -> Check:
    made = ScriptedJudge(grade)
    return check_judge(rows, config, JudgeOptions(votes=votes, make_engine=made.factory))


def test_a_perfect_judge_has_kappa_1(
    rows: pl.DataFrame, labels: dict[tuple[str, str], str], config: Config
) -> None:
    found = checked(rows, config, lambda *case: labels[case], votes=3)
    own = found.compared[0].found
    assert (own.accuracy, own.kappa, own.n) == (1.0, 1.0, 300)
    assert own.confusion.tolist() == np.diag([105, 89, 106]).tolist()
    assert {value for _, value, _, _ in found.groups} >= {"zh", "hedged"}
    assert all(accuracy == 1 for _, _, _, accuracy in found.groups)


def test_a_judge_that_guesses_in_known_shares_has_the_kappa_of_those(
    rows: pl.DataFrame, labels: dict[tuple[str, str], str], config: Config
) -> None:
    """Right with probability 0.6, else one of three at random: kappa is 0.6."""
    draw = random.Random(11)

    def grade(*case: str) -> str:
        return labels[case] if draw.random() < 0.6 else draw.choice(GRADES)

    own = checked(rows, config, grade).compared[0].found
    assert own.low <= 0.6 <= own.high
    assert own.high - own.low < 0.2


def test_a_random_judge_has_kappa_0(rows: pl.DataFrame, config: Config) -> None:
    draw = random.Random(5)
    own = checked(rows, config, lambda *_: draw.choice(GRADES)).compared[0].found
    assert own.low <= 0 <= own.high
    assert abs(own.kappa) < 0.12


def test_rows_without_a_grade_are_left_out_and_told(
    rows: pl.DataFrame, labels: dict[tuple[str, str], str], config: Config
) -> None:
    odd = next(iter(labels))
    found = checked(rows, config, lambda *case: "hm" if case == odd else labels[case])
    assert found.compared[0].found.n == 299
    assert found.counts is not None and found.counts["unread"] == 1
    assert "299 of 300 rows have a grade (1 replies without a grade)" in check_table(found)


def test_a_check_that_was_stopped_asks_nothing_twice(
    rows: pl.DataFrame, labels: dict[tuple[str, str], str], config: Config
) -> None:
    first = ScriptedJudge(lambda *case: labels[case])
    few = rows.head(20)
    check_judge(few, config, JudgeOptions(make_engine=first.factory))
    second = ScriptedJudge(lambda *case: labels[case])
    check_judge(rows.head(25), config, JudgeOptions(make_engine=second.factory))
    assert len(first.prompts) == 20 and len(second.prompts) == 5


def test_a_check_of_known_replies_alone_asks_nobody(rows: pl.DataFrame, config: Config) -> None:
    """All 300, which are looked up in two parts."""
    first = checked(rows, config, lambda *_: "correct")
    again = ScriptedJudge(lambda *_: "incorrect")
    found = check_judge(rows, config, JudgeOptions(make_engine=again.factory))
    assert not again.prompts
    assert found.compared[0].found.accuracy == first.compared[0].found.accuracy == 105 / 300


def test_baselines_are_recomputed(rows: pl.DataFrame) -> None:
    found = {one.grader: one.found for one in check_baselines(rows).compared}
    kinds = Counter(rows["kind"])
    assert kinds == dict.fromkeys(kinds, 60)
    by_phrase = found[PHRASES]
    # All refusals and no other answer: see test_labelled_answers.
    assert by_phrase.confusion[:, GRADES.index("not_attempted")].tolist() == [0, 0, 60]
    right = by_phrase.confusion.trace()
    assert by_phrase.accuracy == pytest.approx(right / 300)
    exact = found["exact_match"]
    assert exact.confusion[0, 0] == 0 and exact.kappa == 0
    assert list(found)[1:5] == [f"token_recall >= {t:g}" for t in (0.25, 0.5, 0.75, 1)]


def test_sklearn_has_the_same_kappa(rows: pl.DataFrame) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from slm_vllm.scoring.answers import score_answers

    recall = score_answers(rows)["token_recall"] >= 0.5
    theirs = metrics.cohen_kappa_score(rows["label"] == "correct", recall)
    found = {one.grader: one.found.kappa for one in check_baselines(rows).compared}
    assert found["token_recall >= 0.5"] == pytest.approx(theirs)


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "own.jsonl",
        [
            {"question": "a", "answer": "x", "predicted_answer": "x", "grade": "A"},
            {"question": "b", "answer": ["x", "y"], "predicted_answer": "", "grade": "C"},
            {"question": "c", "answer": "x", "predicted_answer": "z", "grade": False},
        ],
    )
    rows = read_labelled(str(path))
    assert rows["label"].to_list() == ["correct", "not_attempted", "incorrect"]
    assert rows["prediction"].to_list() == ["x", "", "z"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": "maybe", "prediction": "x"}, "label 'maybe'"),
        ({"label": "correct"}, "no prediction"),
        ({"prediction": "x"}, "no label"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write_rows(tmp_path / "own.jsonl", [{"question": "a", "answer": "x", **row}])
    with pytest.raises(DataError, match=message):
        read_labelled(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "a", "answer": "x", "prediction": "z", "label": "B"}', "question_id of its"),
        ('{"answer": "x", "prediction": "z", "label": "B"}', "line 2: key 'question' is missing"),
        ('{"question": "b", "answer": "x", "predic', "line 2: invalid JSON"),
    ],
)
def test_no_row_is_left_out(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.jsonl"
    first = '{"question": "a", "answer": "x", "prediction": "x", "label": "A"}'
    path.write_text(f"{first}\n{text}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_labelled(str(path))


def test_questions_with_several_predictions_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    row = {"question": "a", "answer": "x", "prediction": "x", "label": "A"}
    path = write_rows(tmp_path / "own.jsonl", [{**row, "question_id": name} for name in "mn"])
    assert read_labelled(str(path)).height == 2


def test_the_command_prints_a_table_or_json() -> None:
    shown = CliRunner().invoke(command, ["check", SHIPPED])
    assert shown.exit_code == 0 and "token_recall >= 0.5" in shown.output
    stored = json.loads(CliRunner().invoke(command, ["check", SHIPPED, "--json"]).output)
    assert stored["rows"] == 300 and stored["agreement"][0]["grader"] == PHRASES


def test_the_command_takes_runs_without_a_name_of_its_own() -> None:
    found = CliRunner().invoke(command, ["no_such_run"])
    assert "--base-url" in str(found.exception)
    assert "check" in CliRunner().invoke(command, ["--help"]).output

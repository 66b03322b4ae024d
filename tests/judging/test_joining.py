"""A judgement among the figures of its run: reading, `compare`, `report`, the tracker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.judging.session import JudgeOptions, judge_runs
from slm_vllm.reporting.alignment import COLUMNS
from slm_vllm.reporting.comparison import check_metric, compare_runs
from slm_vllm.reporting.comparison_tables import comparison_json, render
from slm_vllm.reporting.payload import questions_payload
from slm_vllm.reporting.run_tables import results_table
from slm_vllm.reporting.run_view import view_runs
from slm_vllm.rundir import names
from slm_vllm.rundir.reading import load_run
from slm_vllm.tracking.events import Artifact, SingleValues
from slm_vllm.tracking.recorder import record_additions
from slm_vllm.tracking.spool import read_spool
from support.scripted_judge import ScriptedJudge

RunOf = Callable[..., Path]
GRADES = ("judge_correct", "judge_incorrect", "judge_not_attempted")


def _grade(question: str, answer: str) -> str:
    return answer if answer in ("correct", "incorrect", "not_attempted") else "hm"


@pytest.fixture
def judge(config: Config) -> Callable[..., list[Any]]:
    def judge(*paths: Path, votes: int = 1) -> list[Any]:
        made = ScriptedJudge(_grade)
        return judge_runs(paths, config, JudgeOptions(votes=votes, make_engine=made.factory))

    return judge


def test_grades_and_figures_are_read_with_the_run(run_of: RunOf, judge: Any) -> None:
    path = run_of("one", "correct", "incorrect", "?", "correct")
    before = load_run(path)
    judge(path)
    run = load_run(path)
    assert run.predictions["judge_correct"].to_list() == [1, 0, None, 1]
    assert run.results["metrics"]["judge_correct"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert run.judgement is not None
    assert "judged by judge, prompt 1, 1 without a grade" in run.note
    assert run.predictions.drop(GRADES).equals(before.predictions)
    assert before.judgement is None and "judge_correct" not in before.results["metrics"]


def test_wanted_columns_alone_are_read(run_of: RunOf, judge: Any) -> None:
    judge(path := run_of("one", "correct"))
    run = load_run(path, ["question_id", "judge_incorrect"])
    assert run.predictions.columns == ["question_id", "judge_incorrect"]
    assert load_run(path, ["question_id"]).predictions.columns == ["question_id"]


def test_a_judgement_of_other_answers_is_not_used(run_of: RunOf, judge: Any) -> None:
    judge(path := run_of("one", "correct"))
    file = path / names.PREDICTIONS
    pl.read_parquet(file).with_columns(prediction=pl.lit("another")).write_parquet(file)
    assert load_run(path).judgement is None
    with pytest.raises(DataError, match="no longer those that were judged"):
        load_run(path, ["judge_correct"])


@pytest.mark.parametrize("name", [names.JUDGEMENT, names.GRADES])
def test_a_damaged_judgement_is_for_the_judge_to_mend(run_of: RunOf, judge: Any, name: str) -> None:
    judge(path := run_of("one", "correct"))
    (path / name).write_bytes(b"[1")
    with pytest.raises(DataError, match=f"{name} is damaged.*the judge's command"):
        load_run(path)
    judge(path)
    assert load_run(path).judgement is not None


def test_a_run_that_was_not_judged_says_so(run_of: RunOf) -> None:
    with pytest.raises(DataError, match="slm-vllm judge"):
        load_run(run_of("one", "x"), ["judge_correct"])


def test_runs_are_compared_by_their_grades(run_of: RunOf, judge: Any) -> None:
    one = run_of("one", *["correct"] * 3, *["incorrect"] * 5)
    two = run_of("two", *["correct"] * 7, "not_attempted")
    judge(one, two)
    runs = [load_run(path, (*COLUMNS, "judge_correct")) for path in (one, two)]
    comparison = compare_runs(runs, "judge_correct")
    (pair,) = comparison.datasets[0].pairs
    assert pair.paired.difference.mean == pytest.approx(0.5)
    assert pair.paired.mcnemar is not None and pair.paired.mcnemar.gained == 4
    text = render(comparison, "terminal")
    assert "graded by a judge" in text and "F-score (judge)" in text
    stored = comparison_json(comparison)["datasets"][0]["runs"][1]["judged"]
    assert stored["judge_f_score"]["mean"] == pytest.approx(14 / 15, abs=1e-6)


def test_different_judges_are_not_compared_in_silence(run_of: RunOf, config: Config) -> None:
    paths = [run_of("one", "correct", "correct"), run_of("two", "correct", "incorrect")]
    for path, tokens in zip(paths, (16, 17), strict=True):
        generation = config.generation.model_copy(update={"max_new_tokens": tokens})
        other = config.model_copy(update={"generation": generation})
        judge_runs([path], other, JudgeOptions(make_engine=ScriptedJudge(_grade).factory))
    runs = [load_run(path, (*COLUMNS, "judge_correct")) for path in paths]
    with pytest.raises(ConfigError, match="the judges of these runs differ"):
        compare_runs(runs, "judge_correct")
    assert compare_runs(runs, "judge_correct", allow_different=True).datasets[0].pairs


def test_ratios_are_no_value_of_a_question() -> None:
    with pytest.raises(ConfigError, match="ratio of a whole run.*by judge_correct, judge_inc"):
        check_metric("judge_f_score")
    with pytest.raises(ConfigError, match="judge_correct"):
        check_metric("judge_corect")
    check_metric("judge_not_attempted")


def test_the_report_shows_grades_where_there_are_some(run_of: RunOf, judge: Any) -> None:
    one, two = run_of("one", "correct"), run_of("two", "incorrect")
    plain = results_table(view_runs([load_run(one), load_run(two)]))
    judge(one)
    views = view_runs([load_run(one), load_run(two)])
    assert "F-score (judge)" not in plain and "F-score (judge)" in results_table(views)
    payload = questions_payload(views, [])
    assert [metric["name"] for metric in payload["metrics"]][-3:] == list(GRADES)
    assert [rows["judge_correct"] for rows in payload["rows"]] == [[1.0], [None]]


def test_the_tracker_is_told_of_the_judgement(run_of: RunOf, judge: Any) -> None:
    judge(path := run_of("one", "correct", "incorrect"))
    record_additions(path)
    events = [event for event, _ in read_spool(path / names.SPOOL)]
    (values,) = [event for event in events if isinstance(event, SingleValues)]
    assert values.values["judge_correct"] == 0.5
    assert "token_recall" not in values.values  # the run itself has told of that
    files = {event.path for event in events if isinstance(event, Artifact)}
    assert {names.JUDGEMENT, names.GRADES} <= files
    assert json.loads((path / names.JUDGEMENT).read_text())["counts"]["correct"] == 1

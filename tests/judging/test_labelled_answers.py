"""The shipped answers with labels: whole, balanced, and what the cheap baselines make of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import slm_vllm.judging
from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.grades import GRADES
from slm_vllm.scoring.refusals import is_refusal

FILE = Path(slm_vllm.judging.__file__).with_name("labelled_answers.jsonl")


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return pl.read_ndjson(FILE)


def test_it_is_whole(rows: pl.DataFrame) -> None:
    assert rows.height == 300
    assert rows["question_id"].n_unique() == 300
    assert rows.null_count().sum_horizontal()[0] == 0
    assert set(rows["label"]) == set(GRADES)
    assert rows.group_by("language", "kind").len()["len"].to_list() == [12] * 25
    assert rows.select("question", "prediction").is_unique().all()


def test_each_grade_has_a_fair_share(rows: pl.DataFrame) -> None:
    shares = rows["label"].value_counts(normalize=True)["proportion"]
    assert shares.min() > 0.25


def test_words_in_common_do_not_tell_right_from_wrong(rows: pl.DataFrame) -> None:
    """What the set is for: token recall is higher for the wrong answers than for reworded ones."""
    recall = (
        score_answers(rows).group_by("kind").agg(pl.col("token_recall").mean()).rows_by_key("kind")
    )
    assert recall["overlapping"][0][0] > 0.7 > 0.2 > recall["reworded"][0][0]


def test_refusals_are_those_of_the_labels(rows: pl.DataFrame) -> None:
    found = rows.filter(is_refusal("prediction"))["kind"]
    assert found.to_list() == ["refused"] * 60

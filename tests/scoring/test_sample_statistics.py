from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.regression.mixed_linear_model import MixedLM

from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.metrics import METRICS
from slm_vllm.scoring.sample_statistics import majority_votes, pass_at_k, variance_parts
from slm_vllm.scoring.samples import score_rows


def parts(values: np.ndarray) -> tuple[float, float]:
    found = variance_parts(values.mean(axis=1), values.var(axis=1, ddof=1), answers=values.shape[1])
    return found.between, found.within


def drawn(questions: int, answers: int, seed: int = 0) -> np.ndarray:
    """Between-question variance 0.04, within 0.09."""
    draw = np.random.default_rng(seed)
    own = draw.normal(0.4, 0.2, (questions, 1))
    return own + draw.normal(0, 0.3, (questions, answers))


def test_variance_parts_are_those_of_statsmodels() -> None:
    values = drawn(200, 5)
    long = pd.DataFrame({"y": values.ravel(), "question": np.repeat(np.arange(200), 5)})
    found = MixedLM.from_formula("y ~ 1", long, groups="question").fit(reml=True)
    between, within = parts(values)
    assert between == pytest.approx(float(found.cov_re.iloc[0, 0]), rel=1e-3)
    assert within == pytest.approx(float(found.scale), rel=1e-3)


def test_variance_parts_are_unbiased() -> None:
    found = np.array([parts(drawn(50, 4, seed)) for seed in range(400)])
    error = found.std(axis=0) / math.sqrt(400)
    assert np.all(np.abs(found.mean(axis=0) - [0.04, 0.09]) < 4 * error)


def test_standard_errors_are_those_of_repeated_experiments() -> None:
    one = variance_parts(drawn(100, 5).mean(axis=1), drawn(100, 5).var(axis=1, ddof=1), answers=5)
    assert one.stderr() == pytest.approx(drawn(100, 5).mean(axis=1).std(ddof=1) / 10)
    for answers in (1, 5):
        means = [drawn(100, answers, seed).mean() for seed in range(500)]
        assert one.stderr(answers) == pytest.approx(np.std(means), rel=0.2)
    assert one.stderr(math.inf) < one.stderr() < one.stderr(1)


def test_answers_that_scatter_by_chance_alone_leave_nothing_between() -> None:
    assert variance_parts(np.array([0.5, 0.5]), np.array([0.3, 0.3]), 3).between == 0


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_all_choices_of_k(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    answers = [True] * right + [False] * (n - right)
    chosen = [any(one) for one in combinations(answers, k)]
    assert pass_at_k(np.array([right]), n, k)[0] == pytest.approx(sum(chosen) / len(chosen))


def samples(*predictions: str) -> list[dict[str, str]]:
    return [{"prediction": one} for one in predictions]


def test_the_majority_is_of_normal_forms_and_the_first_of_ties_wins() -> None:
    rows = pl.Series(
        [
            samples("Rome", "The Paris.", "paris"),
            samples("a b", "c d"),
            samples("x"),
            samples("", "no", ""),
            samples("b", "a", "a", "b", "c"),
        ]
    )
    votes = majority_votes(rows)
    assert votes["prediction"].to_list() == ["The Paris.", "a b", "x", "", "b"]
    assert votes["agreement"].to_list() == pytest.approx([2 / 3, 0.5, 1, 2 / 3, 0.4])


def test_a_row_has_the_mean_of_its_answers() -> None:
    frame = pl.DataFrame(
        {
            "question_id": ["a", "b", "c", "d"],
            "answers": [["New York"], ["Paris"], ["?"], ["Rome"]],
            "prediction": ["New York", "Lyon", "x", None],
            "samples": [
                samples("New York", "York", "Boston"),
                samples("Lyon", "Paris", "in Paris"),
                samples("x", "y", "z"),
                [],
            ],
        },
        schema_overrides={"samples": pl.List(pl.Struct({"prediction": pl.String}))},
    )
    scored = score_rows(frame)
    assert scored["question_id"].to_list() == ["a", "b", "c", "d"]
    assert scored["token_recall"].to_list() == pytest.approx([0.5, 2 / 3, None, 0])
    for row in scored.filter(pl.col("samples").list.len() > 0).iter_rows(named=True):
        answers = [row["answers"]] * 3
        alone = score_answers(
            pl.DataFrame(
                {"prediction": [one["prediction"] for one in row["samples"]], "answers": answers}
            )
        )
        for metric in METRICS:
            assert [one[metric] for one in row["samples"]] == alone[metric].to_list()
            assert row[metric] == pytest.approx(alone[metric].mean())
    again = score_rows(scored.select("question_id", "answers", "prediction", "samples"))
    assert again.equals(scored)


def test_rows_without_samples_are_scored_as_ever() -> None:
    frame = pl.DataFrame({"prediction": ["a b"], "answers": [["a b c"]]})
    assert score_rows(frame).equals(score_answers(frame))

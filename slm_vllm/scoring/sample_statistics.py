"""Statistics over several answers to each question."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.scoring.normalize import squad_form, squad_tokens
from slm_vllm.scoring.paired import Values


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Where the scatter of a metric comes from.

    Attributes:
        questions: Their number.
        answers: To each question.
        mean: Over all answers.
        between: Variance of what the model would score on a question on average.
        within: Variance of single answers to one question.
    """

    questions: int
    answers: int
    mean: float
    between: float
    within: float

    def stderr(self, answers: float | None = None) -> float:
        """Of the mean, with so many answers to each question (None: as many as there were).

        sqrt((between + within / answers) / questions)
        """
        each = self.answers if answers is None else answers
        return math.sqrt((self.between + self.within / each) / self.questions)


def variance_parts(means: Values, variances: Values, answers: int) -> VarianceParts:
    """One-way analysis of variance with the questions as random groups of equal size.

    within = mean of s_q^2; between = variance of the question means - within / answers, not below
    0; both unbiased but for that.

    Source: Searle, Casella and McCulloch, Variance Components (1992), section 3.6; for evaluations
    Miller, "Adding Error Bars to Evals" (2024), section 3.

    Args:
        means: Of the answers to each question.
        variances: Of these, with answers - 1.
        answers: To each question, at least 2.
    """
    n = len(means)
    if n < 2:
        mean = float(means[0]) if n else math.nan
        return VarianceParts(n, answers, mean, math.nan, math.nan)
    within = float(variances.mean())
    between = float(means.var(ddof=1)) - within / answers
    return VarianceParts(n, answers, float(means.mean()), max(0.0, between), within)


def pass_at_k(right: npt.NDArray[np.int64], n: int, k: int) -> Values:
    """For each question the chance that one of k answers is right, unbiased, from n of them.

    1 - C(n - right, k) / C(n, k)

    Source: Chen et al., "Evaluating Large Language Models Trained on Code" (2021), section 2.1.

    Args:
        right: How many of the n answers are right.
        n: Answers to each question.
        k: At most n.
    """
    misses = np.array([math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)])
    chances: Values = 1.0 - misses[right]
    return chances


def majority_votes(samples: pl.Series) -> pl.DataFrame:
    """The answer that most of each row's samples agree on.

    Answers are the same where their SQuAD form is; of several that occur as often the one that
    was given first wins.

    Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning" (2023).

    Args:
        samples: List(Struct) with `prediction` and further fields, no row empty.

    Returns:
        One line for each row: the fields of the first sample that says it, and `agreement`: the
        share of the samples that do.
    """
    rows = samples.to_frame("samples").with_row_index("row").explode("samples").unnest("samples")
    form = squad_form(squad_tokens(rows["prediction"].fill_null("")))
    rows = rows.with_columns(form.alias("form")).with_row_index("place")
    sizes = pl.len().over("row", "form")
    rows = rows.with_columns(
        sizes.alias("votes"), pl.col("place").min().over("row", "form").alias("first")
    )
    rows = rows.with_columns((pl.col("votes") / pl.len().over("row")).alias("agreement"))
    chosen = rows.sort(["row", "votes", "first", "place"], descending=[False, True, False, False])
    found = chosen.unique("row", keep="first", maintain_order=True)
    return found.drop("row", "place", "form", "votes", "first")

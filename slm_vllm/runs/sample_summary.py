"""Figures for runs with several answers to a question, or with log-probabilities."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.config.schema import GenerationConfig
from slm_vllm.json_text import json_number
from slm_vllm.rundir.contents import CalibrationFigures, Sampling
from slm_vllm.scoring.calibration import Calibration, calibration
from slm_vllm.scoring.intervals import ValueTally
from slm_vllm.scoring.metrics import METRICS
from slm_vllm.scoring.paired import Values
from slm_vllm.scoring.sample_statistics import majority_votes, pass_at_k, variance_parts

_MOST_K = 10
AGREEMENT, ANSWER, TOKEN = "agreement", "answer probability", "token probability"
"""Kinds of confidence: in the majority's answer, and in the first one by its log-probabilities."""


class SampleSummary:
    """Sums over the answers of a run, taken batch by batch; 100 to 200 bytes for each row.

    Args:
        generation: Says what is kept.
    """

    def __init__(self, generation: GenerationConfig) -> None:
        self._n = generation.n
        self._logprobs = generation.logprobs
        self._answered = 0
        self._values: dict[str, list[Values]] = {metric: [] for metric in METRICS}
        self._votes: list[pl.DataFrame] = []
        self._firsts: list[pl.DataFrame] = []

    def add(self, scored: pl.DataFrame) -> None:
        """Counts a batch of `sampled_schema`; rows without a score are left out.

        Failed rows count as wrong in each of their answers, as they do in the metrics, and have no
        confidence.
        """
        judged = scored.filter(pl.all_horizontal(pl.col(*METRICS).is_not_null()))
        self._add_failed(judged.filter(pl.col("error").is_not_null()))
        rows = judged.filter(pl.col("error").is_null() & (pl.col("samples").list.len() == self._n))
        if rows.is_empty():
            return
        self._answered += rows.height
        answers = rows.select(pl.col("samples").explode()).unnest("samples")
        for metric, parts in self._values.items():
            parts.append(answers[metric].to_numpy().reshape(rows.height, self._n))
        if self._n > 1:
            self._votes.append(majority_votes(rows["samples"]).select(AGREEMENT, *METRICS))
        if self._logprobs:
            first = answers.gather_every(self._n).with_columns(
                pl.col("logprob").exp().alias(ANSWER),
                (pl.col("logprob") / pl.col("n_completion_tokens")).exp().alias(TOKEN),
            )
            known = first.filter(pl.col(TOKEN).is_finite())
            self._firsts.append(known.select(ANSWER, TOKEN, *METRICS))

    def _add_failed(self, rows: pl.DataFrame) -> None:
        if self._n == 1 or rows.is_empty():
            return
        for metric, parts in self._values.items():
            parts.append(np.repeat(rows[metric].to_numpy()[:, None], self._n, axis=1))
        unsure = pl.lit(None, pl.Float64).alias(AGREEMENT)
        self._votes.append(rows.select(unsure, *METRICS))

    def sampling(self, seed: int) -> Sampling | None:
        """What `results.json` says of several answers; None where there were none."""
        if self._n == 1 or not self._answered:
            return None
        votes = pl.concat(self._votes)
        variance, chances = {}, {}
        for name, parts in self._values.items():
            values = np.concatenate(parts)
            found = variance_parts(values.mean(axis=1), values.var(axis=1, ddof=1), self._n)
            variance[name] = {
                "between": json_number(found.between),
                "within": json_number(found.within),
                "stderr": json_number(found.stderr()),
                "stderr_of_one_answer": json_number(found.stderr(1)),
                "stderr_of_endless_answers": json_number(found.stderr(math.inf)),
            }
            if METRICS[name].is_binary:
                right = values.sum(axis=1).astype(np.int64)
                chances[name] = {
                    str(k): _mean(pl.Series(pass_at_k(right, self._n, k)), seed)
                    for k in sorted({*range(1, min(self._n, _MOST_K) + 1), self._n})
                }
        return Sampling(
            answers=self._n,
            questions=votes.height,
            variance=variance,
            pass_at_k=chances,
            majority={name: _mean(votes[name], seed) for name in METRICS},
            agreement=_mean(votes[AGREEMENT], seed),
        )

    def calibration(self) -> dict[str, dict[str, CalibrationFigures]]:
        """By kind of confidence and 0/1 metric."""
        found: dict[str, dict[str, CalibrationFigures]] = {}
        kinds = {AGREEMENT: self._votes, ANSWER: self._firsts, TOKEN: self._firsts}
        for kind, frames in kinds.items():
            if not frames:
                continue
            frame = pl.concat(frames).drop_nulls(kind)
            confidence = frame[kind].to_numpy()
            by_metric = {
                name: calibration(confidence, frame[name].to_numpy())
                for name in METRICS
                if METRICS[name].is_binary
            }
            if figures := {name: _figures(one) for name, one in by_metric.items() if one}:
                found[kind] = figures
        return found


def _figures(found: Calibration) -> CalibrationFigures:
    return CalibrationFigures(
        n=found.n,
        accuracy=round(found.accuracy, 6),
        confidence=round(found.confidence, 6),
        ece=round(found.ece, 6),
        brier=round(found.brier, 6),
        aurc=round(found.aurc, 6),
        bins=[{name: json_number(x) for name, x in asdict(one).items()} for one in found.bins],
        abstaining=[
            {
                # Digits that count: probabilities of whole answers are small.
                "threshold": float(f"{one.threshold:.6g}"),
                "coverage": round(one.coverage, 6),
                "accuracy": one.accuracy.to_json(),
            }
            for one in found.abstentions
        ],
    )


def _mean(values: pl.Series, seed: int) -> Any:
    tally = ValueTally()
    tally.add(values)
    return tally.estimate(seed=seed).to_json()

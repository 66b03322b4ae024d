"""Asks rows again one at a time, to measure what the numerics of batching change."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.rundir.contents import Moved, RepeatCheck
from slm_vllm.rundir.journal import JOURNAL_SCHEMA, Journal
from slm_vllm.scoring.intervals import estimate_share
from slm_vllm.scoring.metrics import METRICS
from slm_vllm.scoring.numeric_floor import numeric_change, numeric_floor
from slm_vllm.scoring.samples import score_rows

Keys = npt.NDArray[np.uint64]


def drawn_rows(keys: Keys, n: int) -> Keys:
    """The keys of n random rows; more rows in the dataset leave most of them the same.

    Keys are hashes, so those that come first in order are a random sample.
    """
    return np.unique(keys)[:n]


def compare_passes(
    first: Journal, second: Journal, drawn: Keys, n_scored: int, *, seed: int
) -> RepeatCheck:
    """Sets the answers of two journals to the same rows against each other.

    Args:
        first: The run's own.
        second: Of the rows that were asked again.
        drawn: Keys of these.
        n_scored: Rows that the run's metrics are means of.
        seed: Of the bootstrap.
    """
    one, other = _scored(first, drawn), _scored(second, drawn)
    answered = (one["error"].is_null() & other["error"].is_null()).to_numpy()
    one, other = one.filter(answered), other.filter(answered)
    changed = sum(a != b for a, b in zip(_said(one), _said(other), strict=True))
    metrics = {}
    for name in METRICS:
        before, after = (frame[name].cast(pl.Float64).to_numpy() for frame in (one, other))
        change = numeric_change(before, after, seed=seed)
        known = n_scored > 0 and not math.isnan(change.mean_square)
        metrics[name] = Moved(
            mean_change=change.mean.to_json(),
            mean_square=change.mean_square if known else None,
            floor=round(numeric_floor(change.mean_square, n_scored), 6) if known else None,
        )
    return RepeatCheck(
        rows=one.height,
        failed=len(drawn) - one.height,
        changed=changed,
        changed_share=estimate_share(changed, one.height).to_json(),
        metrics=metrics,
    )


def _said(rows: pl.DataFrame) -> list[tuple[str, ...]]:
    """All that was answered to each question."""
    kept = rows.select(name for name in ("prediction", "samples") if name in rows.columns)
    return [
        (row["prediction"], *(sample["prediction"] for sample in row.get("samples") or ()))
        for row in kept.iter_rows(named=True)
    ]


def _scored(journal: Journal, keys: Keys) -> pl.DataFrame:
    frames = list(journal.read(keys))
    return score_rows(pl.concat(frames) if frames else pl.DataFrame(schema=JOURNAL_SCHEMA))

"""Runs over one dataset, brought to the same questions in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.errors import ConfigError, DataError
from slm_vllm.figures.breakdowns import retrieval_hit
from slm_vllm.reporting.config_diff import config_differences
from slm_vllm.rundir.reading import RunData
from slm_vllm.rundir.remarks import was_stopped
from slm_vllm.scoring.metrics import JUDGED
from slm_vllm.scoring.paired import PairedComparison, Values, compare_pairs
from slm_vllm.scoring.sequential import compare_stopped_pairs

# All that a comparison reads of the predictions; the metric comes to it.
COLUMNS = ("question_id", "question", "answers", "n_passages_used", "error", "search")


@dataclass(frozen=True, slots=True)
class AlignedRuns:
    """Runs over one dataset.

    Attributes:
        dataset: Its name.
        runs: In the order they were given.
        question_ids: Of the questions, in their order.
        values: The metric, runs x questions; NaN where a question is unscored, or where a run was
            stopped before it.
        hits: For each run that searched, 1.0 where a passage with an answer went into the prompt,
            0.0 where none did, NaN where it is not known; None for other runs.
        notes: What the reader should know.
    """

    dataset: str
    runs: tuple[RunData, ...]
    question_ids: pl.Series
    values: Values
    hits: tuple[Values | None, ...]
    notes: tuple[str, ...]

    def paired(
        self, run: int, baseline: int, *, is_binary: bool = False, seed: int = 0
    ) -> PairedComparison:
        """Two of the runs, by position, question by question.

        Of several answers to a question a 0/1 metric is a mean, which McNemar's test is not for.
        """
        ours, theirs = self.values[run], self.values[baseline]
        both = self.values[[run, baseline]]
        is_binary = is_binary and bool(np.isin(both[~np.isnan(both)], (0, 1)).all())
        if self.are_stopped(run, baseline):
            return compare_stopped_pairs(ours, theirs)
        return compare_pairs(ours, theirs, is_binary=is_binary, seed=seed)

    def are_stopped(self, *runs: int) -> bool:
        """Whether one of these runs ended before it had asked all its questions."""
        return any(was_stopped(self.runs[one].results) for one in runs)


def align(
    runs: Sequence[RunData], metric: str, *, intersect: bool, allow_different: bool
) -> AlignedRuns:
    """Brings runs over one dataset to the same questions.

    Args:
        runs: At least one, all with the same dataset name.
        metric: A column of the predictions.
        intersect: Take the questions that all have where the sets differ.
        allow_different: Go on where prompts, dataset hashes, questions or answers differ.

    Raises:
        ConfigError: The runs differ in what was not allowed to differ.
        DataError: A run has no scored row, a question twice, or they share no question.
    """
    for run in runs:
        _check_rows(run, metric)
    notes = [f"{run.name}: {run.note}." for run in runs if run.note]
    notes += _different(runs, metric, allow_different)
    frames, shared = _shared_questions(runs, intersect)
    notes += shared
    notes += _other_texts(runs, frames, allow_different)
    notes += _failures(runs, frames)
    values = np.stack([frame[metric].cast(pl.Float64).to_numpy() for frame in frames])
    return AlignedRuns(
        dataset=str(runs[0].results["dataset"]),
        runs=tuple(runs),
        question_ids=frames[0]["question_id"],
        values=np.where(np.isfinite(values), values, np.nan),
        hits=tuple(_hits(frame) for frame in frames),
        notes=tuple(notes),
    )


def _check_rows(run: RunData, metric: str) -> None:
    rows = run.predictions
    ids = rows["question_id"]
    if ids.null_count():
        raise DataError(f"{run.path}: {ids.null_count()} predictions have no question_id")
    twice = ids.filter(ids.is_duplicated())
    if len(twice):
        raise DataError(
            f"{run.path}: question_id '{twice[0]}' occurs {(ids == twice[0]).sum()} times. Rows "
            "are paired by it; give each question of the dataset an id of its own and run again"
        )
    if not rows[metric].count():
        raise DataError(
            f"{run.path}: none of its {rows.height} rows has a value of {metric}, because none has "
            "a usable answer to score against. There is nothing to compare"
        )


def _judge(run: RunData) -> str:
    if run.judgement is None:
        return ""
    judge = run.judgement["judge"]
    return f"{judge['votes']}x{judge['fingerprint']}"


def _different(runs: Sequence[RunData], metric: str, allowed: bool) -> list[str]:
    """Prompts and dataset hashes that are not the same in all runs.

    Raises:
        ConfigError: There are some, and that is not allowed.
    """
    notes = []
    for what, identities in (
        ("prompts", [_text(run.manifest.get("prompt_hash")) for run in runs]),
        ("dataset files", [_dataset_hash(run) for run in runs]),
        ("judges", [_judge(run) if metric in JUDGED else "" for run in runs]),
    ):
        if len(known := set(filter(None, identities))) < 2:
            continue
        named = ", ".join(
            f"{run.name} {identity[:8] if identity else 'unknown'}"
            for run, identity in zip(runs, identities, strict=True)
        )
        message = f"the {what} of these runs differ, in {len(known)} versions by hash: {named}"
        if what == "prompts":
            changed = [d.key for d in config_differences(runs) if d.key.startswith("prompt.")]
            message += f". Settings that differ: {', '.join(changed) or 'none that is known'}"
        if not allowed:
            raise ConfigError(f"{message}. Compare them all the same with --allow-different")
        notes.append(message)
    return notes


def _dataset_hash(run: RunData) -> str:
    dataset = run.manifest.get("dataset")
    if not isinstance(dataset, dict):
        return ""
    return _text(dataset.get("sha256") or dataset.get("sha256_of_ends"))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _shared_questions(
    runs: Sequence[RunData], intersect: bool
) -> tuple[list[pl.DataFrame], list[str]]:
    """Each run's rows of the questions that are compared, in the order of the first run.

    How far a run came that was stopped depends on its figures, so it leaves no question out of the
    other pairs: where it was not asked it has rows of nulls.
    """
    ids, notes = _shared_ids(runs, intersect)
    for run in runs:
        if was_stopped(run.results):
            asked = ids.join(run.predictions, on="question_id", how="semi").height
            notes.append(
                f"{run.name} was stopped after {asked} of these {ids.height} questions; its "
                "differences are over those, and not those of the means."
            )
    frames = [
        ids.join(run.predictions, on="question_id", how="left", maintain_order="left")
        for run in runs
    ]
    return frames, notes


def _shared_ids(runs: Sequence[RunData], intersect: bool) -> tuple[pl.DataFrame, list[str]]:
    """The questions that all have that asked all their questions; what there is to say of it."""
    all_ids = [run.predictions.select("question_id") for run in runs]
    whole = [
        ids for ids, run in zip(all_ids, runs, strict=True) if not was_stopped(run.results)
    ] or [pl.concat(all_ids).unique(maintain_order=True)]
    ids = whole[0]
    for other in whole[1:]:
        ids = ids.join(other, on="question_id", how="semi", maintain_order="left")
    if pl.concat(all_ids)["question_id"].n_unique() == ids.height:
        return ids, []
    those = "of these runs" if len(whole) == len(runs) else "that were not stopped"
    each = ", ".join(f"{run.name} has {run.predictions.height} questions" for run in runs)
    message = f"{each}; {ids.height} are in all {those}"
    if not ids.height:
        raise DataError(f"the runs share no question: {message}")
    if not intersect:
        raise ConfigError(
            f"the runs have different questions: {message}. Compare them on those with "
            "--intersect, or leave runs out"
        )
    return ids, [f"Only shared questions are compared: {message}."]


def _other_texts(
    runs: Sequence[RunData], frames: Sequence[pl.DataFrame], allowed: bool
) -> list[str]:
    """Runs whose questions or answers are not those of the runs before for the same ids."""
    known = np.zeros(frames[0].height, dtype=bool)
    first = np.zeros(frames[0].height, dtype=np.uint64)
    notes = []
    for run, frame in zip(runs, frames, strict=True):
        hashes = _text_hashes(frame)
        asked = frame["question_id"].is_in(run.predictions["question_id"].implode()).to_numpy()
        other = int((known & asked & (hashes != first)).sum())
        first, known = np.where(known, first, hashes), known | asked
        if not other:
            continue
        message = (
            f"{other} of {int(asked.sum())} questions have another text or other answers in "
            f"{run.name} than in {runs[0].name}, under the same question_id"
        )
        if not allowed:
            raise ConfigError(f"{message}. Compare them all the same with --allow-different")
        notes.append(message)
    return notes


def _text_hashes(frame: pl.DataFrame) -> npt.NDArray[np.uint64]:
    return frame.select(pl.struct("question", "answers").hash()).to_series().to_numpy()


def _failures(runs: Sequence[RunData], frames: Sequence[pl.DataFrame]) -> list[str]:
    failed = [
        f"{run.name} {count:,}"
        for run, frame in zip(runs, frames, strict=True)
        if (count := frame["error"].count())
    ]
    if not failed:
        return []
    return [f"Questions that failed count as answered with nothing: {', '.join(failed)}."]


def _hits(frame: pl.DataFrame) -> Values | None:
    if not frame["search"].count():
        return None
    hits: Values = retrieval_hit(frame).cast(pl.Float64).to_numpy()
    return hits

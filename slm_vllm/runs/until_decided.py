"""`eval --against RUN --until decided`: stops when the difference is settled.

Questions are asked in random order, by a hash of seed and question id: independent of all answers,
the same for every run over the data, and unchanged where rows are added. So an interrupted run
resumes its looks where they were, and runs that stopped early share their first questions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.config.schema import ExperimentConfig
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.json_text import json_number
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import Look, Until
from slm_vllm.rundir.files import if_readable, read_results
from slm_vllm.rundir.lookup import find_run, why_unfinished
from slm_vllm.rundir.reading import load_run
from slm_vllm.rundir.remarks import was_stopped
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.cell_rows import Plan
from slm_vllm.scoring.metrics import MAIN
from slm_vllm.scoring.paired import paired_differences
from slm_vllm.scoring.samples import score_rows
from slm_vllm.scoring.sequential import confidence_sequence

_GROWTH = 1.1  # of the questions between looks: an engine idles before each
_TEXTS = ("question", "answers")


def question_order(ids: pl.Series, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the questions in the random order in which they are asked."""
    hashes = [
        hashlib.blake2b(f"{seed}:{one}".encode(errors="surrogatepass"), digest_size=8).digest()
        for one in ids
    ]
    return np.argsort(np.array(hashes, dtype="S8").view(">u8"), kind="stable")


def looks_at(n: int, step: int) -> Iterator[int]:
    """Numbers of questions after which the difference is looked at; the last is n."""
    m = 0
    while m < n:
        m = min(n, max(m + step, math.ceil(m * _GROWTH)))
        yield m


def find_baseline(experiment: ExperimentConfig) -> Path:
    """The folder of `experiment.against`.

    Raises:
        ConfigError: It cannot be what a run is decided against.
        DataError: It is not finished.
    """
    path = find_run(experiment.against or "", Path(experiment.output_dir))
    if (problem := why_unfinished(path)) is not None:
        raise DataError(f"--against {path}: the run is not finished ({problem})")
    if was_stopped(if_readable(read_results, path) or {}):
        raise ConfigError(
            f"--against {path}: that run was itself stopped before it had asked all its questions. "
            "The same command without --until decided asks the rest"
        )
    return path


def paired_rows(cell: Cell) -> tuple[pl.Series, pl.DataFrame]:
    """The ids of all rows in order, and what the run that it is decided against has to each.

    Raises:
        ConfigError: The runs share no question, or have other ones under the same ids.
        DataError: The other run cannot be read, or an id is no question's own.
    """
    path = find_baseline(cell.config.experiment)
    rows = pl.concat(frame.select("question_id", *_TEXTS) for frame in cell.questions.scan())
    theirs = load_run(path, ("question_id", *_TEXTS, MAIN, "error")).predictions
    for ids, where in ((rows["question_id"], cell.name), (theirs["question_id"], "")):
        if (n := int(ids.is_duplicated().sum())) or ids.null_count():
            raise DataError(
                f"{where or path}: {n + ids.null_count()} questions have no id of their "
                "own, by which runs are paired"
            )
    paired = rows.join(
        theirs.with_columns(pl.lit(True).alias("is_shared")),
        on="question_id",
        how="left",
        suffix="_theirs",
        maintain_order="left",
    ).with_columns(pl.col("is_shared").fill_null(False))
    shared = paired.filter("is_shared")
    if shared.is_empty():
        raise ConfigError(f"--against {path}: the run has none of these questions")
    same = pl.all_horizontal(pl.col(name) == pl.col(f"{name}_theirs") for name in _TEXTS)
    if other := shared.height - shared.filter(same).height:
        raise ConfigError(
            f"--against {path}: {other} of {shared.height} questions have another text "
            "or other answers there, under the same question_id"
        )
    return rows["question_id"], paired


class UntilDecided:
    """The looks of one cell.

    Args:
        cell: The cell, its journal open.
        plan: Its rows.
        step: Least number of questions between two looks.

    Attributes:
        total: Questions that the run it is decided against has too.
        failed: Those of them that failed there, which count as answered with nothing.

    Raises:
        ConfigError: The runs share no question, or have other ones under the same ids.
        DataError: The other run cannot be read.
    """

    def __init__(self, cell: Cell, plan: Plan, step: int) -> None:
        self._cell, self._keys, self._step = cell, plan.keys, step
        self._path = find_baseline(cell.config.experiment)
        ids, baseline = paired_rows(cell)
        order = question_order(ids, cell.config.experiment.seed)
        self._order = order[baseline["is_shared"].to_numpy()[order]]
        self._baseline = baseline[MAIN].cast(pl.Float64).to_numpy()[self._order]
        self._differences: list[npt.NDArray[np.float64]] = []
        self._looks: list[Look] = []
        self.total = len(self._order)
        self.failed = int(baseline["error"].count())

    @property
    def asked(self) -> npt.NDArray[np.bool_]:
        """Which rows were looked at: bool, shape (rows,)."""
        return self._first(self._looks[-1]["questions"] if self._looks else 0)

    def within(self, plan: Plan) -> Plan:
        """The plan with no rows open but those that may be asked."""
        return plan.within(self._first(self.total))

    def parts(self, plan: Plan) -> Iterator[Plan]:
        """Which rows to ask before each look, until it is decided.

        Each part is to be asked before the next is taken. Where all is answered there is nothing to
        be spared, and one look.
        """
        seen = 0
        step = self._step if self.within(plan).pending else self.total
        for m in looks_at(self.total, step):
            yield plan.within(self._first(m) & ~self._first(seen))
            self._look(seen, m)
            seen = m
            if self._looks[-1]["decision"] is not None:
                return

    def result(self) -> Until:
        """What `results.json` says of it."""
        last = self._looks[-1]
        return {
            "against": self._path.resolve().name,
            "metric": MAIN,
            "margin": self._cell.config.experiment.margin,
            "level": self._cell.config.experiment.level,
            "decision": last["decision"],
            "questions": last["questions"],
            "of": self.total,
            "looks": len(self._looks),
            "difference": last["difference"],
            "interval": [last["low"], last["high"]],
        }

    def _first(self, m: int) -> npt.NDArray[np.bool_]:
        rows = np.zeros(len(self._keys), dtype=bool)
        rows[self._order[:m]] = True
        return rows

    def _look(self, seen: int, m: int) -> None:
        values = self._values(self._keys[self._order[seen:m]])
        self._differences.append(paired_differences(values, self._baseline[seen:m]))
        experiment = self._cell.config.experiment
        found = confidence_sequence(np.concatenate(self._differences), experiment.level)
        decision = found.decision(experiment.margin)
        ends = experiment.until == "decided" or decision == "worse" or m == self.total
        self._looks.append(
            {
                "questions": m,
                "difference": json_number(found.mean),
                "low": round(found.low, 6),
                "high": round(found.high, 6),
                "decision": decision if ends else None,
            }
        )
        lines = "".join(f"{json.dumps(look)}\n" for look in self._looks)
        self._cell.folder.write_text(names.LOOKS, lines)

    def _values(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
        scored = [score_rows(frame)[MAIN] for frame in self._cell.journal.read(keys)]
        values: npt.NDArray[np.float64] = pl.concat(scored).cast(pl.Float64).to_numpy()
        return values

"""A finished run in front of the judge: which answers are asked about, and what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from slm_vllm.errors import DataError
from slm_vllm.judging.asking import Asking
from slm_vllm.judging.judge import Case, Judge
from slm_vllm.judging.prompt import read_reply
from slm_vllm.judging.verdict import EMPTY, UNSCORED, decide, grade_counts, grades_frame
from slm_vllm.rundir import names
from slm_vllm.rundir.finding import why_unfinished
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import Journal
from slm_vllm.rundir.judgement import (
    ANSWER_COLUMNS,
    REPLIES_SCHEMA,
    Judgement,
    answers_digest,
)
from slm_vllm.rundir.predictions import read_predictions
from slm_vllm.rundir.state import now
from slm_vllm.runs.services import Services
from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.grades import grade_estimates
from slm_vllm.types import Completion
from slm_vllm.version import __version__


class JudgedRun:
    """The answers of one run, its folder locked while they are judged.

    Args:
        path: The run folder.
        votes: How often each answer is asked about.
        stack: Closes it.

    Attributes:
        name: The folder's name.

    Raises:
        DataError: The run is not finished, or its predictions cannot be read.
        StorageError: Another process uses the folder.
    """

    def __init__(self, path: Path, votes: int, stack: ExitStack) -> None:
        if (problem := why_unfinished(path)) is not None:
            raise DataError(
                f"{path}: the run is not finished ({problem}), so there is nothing to judge. "
                f"`slm-vllm runs show {path}` says how to go on with it"
            )
        self.name = path.resolve().name
        self.folder = RunFolder(path)
        stack.callback(self.folder.close)
        self.folder.lock("leave the run out")
        self._votes = votes
        self._rows = read_predictions(path / names.PREDICTIONS, ANSWER_COLUMNS)
        self._journal = stack.enter_context(Journal(path / names.JUDGEMENTS, REPLIES_SCHEMA))
        self._asked = _asked_about(self._rows)

    def cases(self) -> Iterator[Case]:
        """All votes on all answers that the judge has to see."""
        for _, row in self._rows_to_judge():
            yield from self._votes_on(row)

    def judge(self, judge: Judge, services: Services, seed: int) -> Judgement:
        """Asks what has no reply yet and writes the judgement.

        Args:
            judge: Prepared.
            services: Console and signals of the command.
            seed: Of the bootstrap.

        Raises:
            EngineError: The engine died, or not one reply came.
            Interrupted: A signal came; what was replied is kept.
        """
        counts: Counter[str] = Counter()
        cases = {judge.key(case): case for case in self.cases()}
        known = set(self._journal.keys(with_failed=False).tolist())
        pending = {key: case for key, case in cases.items() if key not in known}
        counts["resumed"] = len(cases) - len(pending)
        Asking(judge, services, self.name, self._record, counts).ask(pending)
        self._journal.sync()
        return self._write(judge, counts, seed)

    def _rows_to_judge(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in enumerate(self._rows.iter_rows(named=True)):
            if self._asked[number] is None:
                yield number, row

    def _votes_on(self, row: dict[str, Any]) -> Iterator[Case]:
        answers = tuple(dict.fromkeys(filter(None, row["answers"])))
        for vote in range(self._votes):
            question = row["question"] or ""
            yield Case(row["question_id"], question, answers, row["prediction"], vote)

    def _record(self, key: int, case: Case, reply: Completion) -> None:
        grade = None if reply.error else read_reply(reply.text, case.vote)
        self._journal.append(
            {
                "key": f"{key:016x}",
                "question_id": case.question_id,
                "vote": case.vote,
                "grade": grade,
                "reply": reply.text,
                "finish_reason": reply.finish_reason,
                "n_prompt_tokens": reply.n_prompt_tokens,
                "n_completion_tokens": reply.n_completion_tokens,
                "error": reply.error,
            }
        )

    def _write(self, judge: Judge, replies: Counter[str], seed: int) -> Judgement:
        frame = grades_frame(self._rows["question_id"], self._verdicts(judge))
        counts = grade_counts(frame)
        empty = sum(one is EMPTY for one in self._asked)
        for name in ("asked", "resumed", "from_cache"):
            counts[name] = replies[name]
        identity = judge.identity | {"votes": self._votes}
        content: Judgement = {
            "judge": identity | {"fingerprint": judge.fingerprint},
            "created": now(),
            "slm_vllm": __version__,
            "answers": answers_digest(self._rows),
            "counts": counts | {"empty": empty},
            "metrics": {
                name: one.to_json() for name, one in grade_estimates(counts, seed=seed).items()
            },
        }
        # The figures come last: without them the grades are not read.
        (self.folder.path / names.JUDGEMENT).unlink(missing_ok=True)
        with self.folder.replacing(names.GRADES) as path:
            frame.write_parquet(path, compression="zstd")
        self.folder.write_json(names.JUDGEMENT, content)
        return content

    def _verdicts(self, judge: Judge) -> list[dict[str, Any]]:
        keys = [
            [judge.key(case) for case in self._votes_on(row)] for _, row in self._rows_to_judge()
        ]
        wanted = np.unique(np.array(keys, dtype=np.uint64))
        found: dict[int, tuple[str | None, bool]] = {}
        for frame in self._journal.read(wanted):
            for key, grade, error in frame.select("key", "grade", "error").iter_rows():
                found[int(key, 16)] = (grade, error is not None)
        verdicts = list(self._asked)
        for (number, _), votes in zip(self._rows_to_judge(), keys, strict=True):
            replies = [found[key] for key in votes if key in found]
            given = [grade for grade, has_failed in replies if not has_failed]
            verdicts[number] = decide(given, len(votes) - len(given))
        return [one or {} for one in verdicts]


def _asked_about(rows: pl.DataFrame) -> list[dict[str, Any] | None]:
    """What is known of each row without a judge; None: it has to be asked."""
    # What a usable answer is, scoring says: other rows have no value in any metric.
    unscored = score_answers(rows)["token_recall"].is_null()
    blank = rows["prediction"].fill_null("").str.strip_chars() == ""
    empty = blank | rows["error"].is_not_null()
    without: dict[str, Any] = {"grade": None, "undecided": UNSCORED, "votes": []}
    return [
        without if is_unscored else EMPTY if is_empty else None
        for is_unscored, is_empty in zip(unscored, empty, strict=True)
    ]

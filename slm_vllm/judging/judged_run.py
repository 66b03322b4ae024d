"""Judges one finished run: which answers are asked about, and what is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from slm_vllm.errors import DataError
from slm_vllm.judging.ballot import Ballot
from slm_vllm.judging.baselines import JUDGE, baselines
from slm_vllm.judging.judge import Case, Judge
from slm_vllm.judging.prompt import read_reply
from slm_vllm.judging.verdict import grade_counts
from slm_vllm.rundir import names
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import Journal
from slm_vllm.rundir.judgement import (
    ANSWER_COLUMNS,
    REPLIES_SCHEMA,
    Judgement,
    answers_digest,
)
from slm_vllm.rundir.lookup import why_unfinished
from slm_vllm.rundir.predictions import read_predictions
from slm_vllm.rundir.state import now
from slm_vllm.runs.auxiliary import AuxiliaryRequests
from slm_vllm.runs.services import Services
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
                f"`slm-vllm runs show {path}` says how to resume it"
            )
        self.name = path.resolve().name
        self.folder = RunFolder(path)
        stack.callback(self.folder.close)
        self.folder.lock("leave the run out")
        self._votes = votes
        self._rows = read_predictions(path / names.PREDICTIONS, ANSWER_COLUMNS)
        self._journal = stack.enter_context(Journal(path / names.JUDGEMENTS, REPLIES_SCHEMA))
        self._ballot = Ballot(self._rows, votes)

    def cases(self) -> Iterator[Case]:
        """All votes on all answers that the judge has to see."""
        return self._ballot.cases()

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
        AuxiliaryRequests(judge, services, self.name, self._record, counts).ask(pending)
        self._journal.sync()
        return self._write(judge, counts, seed)

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
        frame = self._ballot.grades(judge, self._replies())
        counts = grade_counts(frame)
        known = self._rows.with_columns(frame["grade"]).filter(pl.col("grade").is_not_null())
        for name in ("asked", "resumed", "from_cache"):
            counts[name] = replies[name]
        identity = judge.identity | {"votes": self._votes}
        content: Judgement = {
            "judge": identity | {"fingerprint": judge.fingerprint},
            "created": now(),
            "slm_vllm": __version__,
            "answers": answers_digest(self._rows),
            "counts": counts | {"empty": self._ballot.n_empty},
            "metrics": {
                name: one.to_json() for name, one in grade_estimates(counts, seed=seed).items()
            },
            "agreement": [one.to_json() for one in baselines(known, "grade", JUDGE)],
        }
        # The figures come last: without them the grades are not read.
        (self.folder.path / names.JUDGEMENT).unlink(missing_ok=True)
        with self.folder.replacing(names.GRADES) as path:
            frame.write_parquet(path, compression="zstd")
        self.folder.write_json(names.JUDGEMENT, content)
        return content

    def _replies(self) -> dict[int, tuple[str | None, bool]]:
        """What the journal holds: by key the grade, and whether the request failed."""
        found = {}
        for frame in self._journal.read(self._journal.keys()):
            for key, grade, error in frame.select("key", "grade", "error").iter_rows():
                found[int(key, 16)] = (grade, error is not None)
        return found

"""Judges any number of runs over one engine load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from slm_vllm.config.schema import Config
from slm_vllm.engines.registry import EngineFactory
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.judging.judge import Judge
from slm_vllm.judging.judged_run import JudgedRun
from slm_vllm.judging.prompt import MOST_VOTES
from slm_vllm.judging.verdict import FAILED
from slm_vllm.plugins import as_user_error
from slm_vllm.rundir import names
from slm_vllm.rundir.judgement import NamedJudgement
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.services import Services, open_services


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """How a judge is asked.

    Attributes:
        votes: How often each answer is asked about, each time with the grades in another order.
        own_process: See `RunOptions`.
        make_engine: Builds the engine; None: the one that the configuration names.
    """

    votes: int = 1
    own_process: bool = False
    make_engine: EngineFactory | None = None


def judge_runs(
    paths: Sequence[Path], config: Config, options: JudgeOptions | None = None
) -> list[NamedJudgement]:
    """Grades the answers of finished runs and leaves a judgement in each folder.

    Replies that are there already, in the folder or of equal answers elsewhere, are kept.

    Args:
        paths: Run folders.
        config: The judge's model, engine, hardware and generation; the rest is not used.
        options: How it is asked.

    Returns:
        For each run its `judgement.json` with the `name` of the run.

    Raises:
        SlmVllmError: What the user has to fix.
        Interrupted: A signal stopped it; what was replied is kept.
    """
    options = options or JudgeOptions()
    check_votes(options.votes)
    with judge_services(options) as services:
        runs = [JudgedRun(path, options.votes, services.stack) for path in paths]
        judge = open_judge(config, options, runs[0].folder.path, services)
        judge.prepare(chain.from_iterable(run.cases() for run in runs))
        found: list[NamedJudgement] = []
        for run in runs:
            services.log.write_to(run.folder.path / names.JUDGE_LOG)
            judgement = run.judge(judge, services, config.experiment.seed)
            _check_graded(run.name, judgement["counts"])
            found.append({**judgement, "name": run.name})
        return found


def open_judge(config: Config, options: JudgeOptions, folder: Path, services: Services) -> Judge:
    """A judge that is to be prepared yet; it and its engine write their logs into a folder."""
    services.log.write_to(folder / names.JUDGE_LOG)
    services.log.capture(engine_log := folder / names.JUDGE_ENGINE_LOG)
    return Judge(config, services, options.make_engine, engine_log=engine_log)


@contextmanager
def judge_services(options: JudgeOptions) -> Iterator[Services]:
    """Console and signals of a judge's command; errors come out as errors the user can fix."""
    with ExitStack() as stack:
        services = open_services(RunOptions(own_process=options.own_process), stack)
        try:
            yield services
        except Exception as error:
            if (stop := services.signals.interruption()) is not None:
                raise stop from error
            problem = as_user_error(error)
            raise problem from problem.__cause__


def check_votes(votes: int) -> None:
    """Raises ConfigError for a number of votes that there are not."""
    if not 1 <= votes <= MOST_VOTES:
        raise ConfigError(
            f"{votes} votes: a vote is an order in which three grades are listed, and there are "
            f"{MOST_VOTES}; give 1 to {MOST_VOTES} (3 has each grade under each letter once)"
        )


def _check_graded(name: str, counts: dict[str, int]) -> None:
    """Refuses to call a run judged in which every request failed."""
    if counts[FAILED] and counts[FAILED] + counts["empty"] + counts["unscored"] == counts["total"]:
        raise EngineError(
            f"{name}: not one of {counts[FAILED]} requests to the judge was answered; "
            f"{names.JUDGEMENTS} holds the reasons. The same command asks them again"
        )

"""Finds, inspects and stops runs of other processes.

All is read from the run folder, so it works from another shell, and after the process has ended.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from slm_vllm.errors import ConfigError, DataError, SlmVllmError, StorageError
from slm_vllm.json_text import as_mapping, as_number
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import Results
from slm_vllm.rundir.files import (
    damaged,
    if_readable,
    read_manifest,
    read_results,
    read_state,
)
from slm_vllm.rundir.lookup import find_runs, runs_in

_ENDED = ("finished", "interrupted", "failed")
# psutil derives the start time from clock ticks (10 ms) and the time of boot.
_SAME_START_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a run folder says of its run.

    Attributes:
        name: The folder's name; a run whose folder was renamed is known by its new one.
        path: Its folder.
        phase: "loading", "generating", "finished", "interrupted" or "failed"; "died" where the
            phase says that it is running and its process is gone; "damaged" where the state
            cannot be read.
        pid: The process of the run, None when the state cannot be read.
        pid_started: When that process began, in seconds since 1970.
        alive: Whether that very process exists; not one that was given its pid afterwards.
        done: Rows with an answer.
        total: Rows of the run.
        heartbeat_age: Seconds since the state was last written.
        questions_per_second: From the results of a finished run, else lately.
        token_recall: From the results, else of what its process has answered.
        token_recall_ci95: Its 95 % interval.
        errors: Rows that failed.
        eta_seconds: Until its last answer, None where that cannot be told.
        error: Why it failed.
        problem: Why the state could not be read.
    """

    name: str
    path: Path
    phase: str
    pid: int | None = None
    pid_started: float | None = None
    alive: bool = False
    done: int | None = None
    total: int | None = None
    heartbeat_age: float | None = None
    questions_per_second: float | None = None
    token_recall: float | None = None
    token_recall_ci95: tuple[float, float] | None = None
    errors: int | None = None
    eta_seconds: float | None = None
    error: str | None = None
    problem: str | None = None

    @property
    def running(self) -> bool:
        """Whether its process is at work on it, and not on another mode only."""
        return self.alive and self.phase not in _ENDED

    @property
    def unfinished(self) -> bool:
        """Whether giving its command again resumes it."""
        return self.phase in ("died", "interrupted", "failed")

    def process(self) -> psutil.Process | None:
        """Its very process, None where that has ended or is not known."""
        if self.pid is None or self.pid_started is None:
            return None
        return process_of(self.pid, self.pid_started)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "path": str(self.path)}


def list_jobs(output_dir: Path) -> list[Job]:
    """Every run in `output_dir` and its sweeps, those with the latest sign of life first.

    A run whose state cannot be read is "damaged".

    Raises:
        ConfigError: There is no such folder.
        StorageError: It cannot be read.
    """
    if not output_dir.exists():
        raise ConfigError(
            f"{output_dir}: there is no such folder. Say with --output-dir where the runs are"
        )
    if not output_dir.is_dir():
        raise ConfigError(
            f"{output_dir} is a file. Say with --output-dir which folder the runs are in"
        )
    return by_sign_of_life(_job_or_damage(path) for path in runs_in(output_dir))


def by_sign_of_life(jobs: Iterable[Job]) -> list[Job]:
    """The latest first."""
    return sorted(jobs, key=lambda job: (job.heartbeat_age is None, job.heartbeat_age or 0.0))


def find_jobs(patterns: Sequence[str], output_dir: Path) -> list[Job]:
    """The runs that are meant; see `rundir.lookup`. One of several may be "damaged".

    Raises:
        ConfigError: There is none.
        DataError: There is one, and its files are damaged.
        StorageError: A folder cannot be read.
    """
    folders = find_runs(patterns, output_dir)
    return [read_job(folders[0])] if len(folders) == 1 else [_job_or_damage(f) for f in folders]


def read_job(path: Path) -> Job:
    """Reads a run folder.

    Raises:
        DataError: `state.json` is damaged, or missing without there being results.
        StorageError: A file cannot be read.
    """
    state, results = read_state(path), read_results(path)
    if state is None:
        return _copied(path, results)
    phase, pid = state.get("phase"), state.get("pid")
    pid_started = state.get("pid_started")
    if (
        not isinstance(phase, str)
        or not isinstance(pid, int)
        or not isinstance(pid_started, (int, float))
        or pid <= 0
    ):
        reason = "phase, pid or pid_started is missing or of another type"
        raise damaged(path / names.STATE, reason)
    alive = process_of(pid, pid_started) is not None
    if phase not in _ENDED and not alive:
        phase = "died"
    done, total = (_count(number) for number in (state.get("done"), state.get("total")))
    finished = results if phase == "finished" else None
    return Job(
        name=path.resolve().name,
        path=path,
        phase=phase,
        pid=pid,
        pid_started=float(pid_started),
        alive=alive,
        done=done,
        total=total,
        heartbeat_age=_age(state.get("heartbeat")),
        questions_per_second=_rate(finished) or as_number(state.get("questions_per_second")),
        token_recall=as_number((finished or state).get("token_recall")),
        token_recall_ci95=_interval(finished) or _ends(state.get("token_recall_ci95")),
        errors=_errors(finished) if finished else _count(state.get("errors")),
        eta_seconds=as_number(state.get("eta_seconds")) if alive else None,
        error=state.get("error") if phase == "failed" else None,
    )


def _copied(path: Path, results: Results | None) -> Job:
    """A finished run of which results were copied and the state was not."""
    if results is None:
        raise DataError(
            f"{path / names.STATE} is missing. The run ended before it wrote its state; give its "
            "command again"
        )
    total = _count(results.get("num_examples"))
    return Job(
        name=path.resolve().name,
        path=path,
        phase="finished",
        done=total,
        total=total,
        questions_per_second=_rate(results),
        token_recall=as_number(results.get("token_recall")),
        token_recall_ci95=_interval(results),
        errors=_errors(results),
    )


def resume_hint(job: Job) -> str:
    """How to resume a run that did not finish."""
    words = (if_readable(read_manifest, job.path) or {}).get("command")
    ending = ". "
    if isinstance(words, list) and words[1:2] == ["eval"]:
        # With --overwrite it would start over.
        kept = [str(word) for word in words[1:] if word != "--overwrite"]
        ending = f":\n  slm-vllm {shlex.join(kept)}\n"
    return (
        f"Resume it by giving its command again{ending}"
        f"{job.path / names.CONFIG} holds its settings; what is answered is not asked again."
    )


def stop_jobs(jobs: Sequence[Job], timeout: float) -> list[tuple[Job, float]]:
    """Stops those that are running; see `stop_job`.

    Returns:
        Those that were running, with the seconds it took; modes of one command end together.

    Raises:
        ConfigError: None is running.
        StorageError: A process may not be signalled, or is still there after `timeout`.
    """
    running = [job for job in jobs if job.running] if len(jobs) > 1 else jobs
    if not running:
        raise ConfigError(f"none of these {len(jobs)} runs is running; nothing to stop")
    seconds: dict[int | None, float] = {}
    for job in running:
        if job.pid not in seconds:
            seconds[job.pid] = stop_job(job, timeout)
    return [(job, seconds[job.pid]) for job in running]


def stop_job(job: Job, timeout: float) -> float:
    """Asks a run to stop with SIGTERM and waits until its process has ended.

    Args:
        job: The run.
        timeout: Longest wait in seconds.

    Returns:
        How many seconds it took.

    Raises:
        ConfigError: It is not running.
        StorageError: The process may not be signalled, or is still there after `timeout`.
    """
    # A mode that is finished belongs to a process that may work on another mode still.
    process = job.process() if job.running else None
    if process is None:
        raise ConfigError(f"{job.name} is not running (phase: {job.phase}); nothing to stop")
    started = time.monotonic()
    try:
        process.terminate()  # compares the start time once more
        process.wait(timeout)
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        raise StorageError(
            f"{job.name}: process {job.pid} belongs to another user ({process.username()}) "
            "and cannot be stopped by you"
        ) from None
    except psutil.TimeoutExpired:
        raise StorageError(
            f"{job.name}: process {job.pid} is still there {timeout:g} s after SIGTERM. It may be "
            "finishing what is in flight: wait, or give the command again (a second signal ends "
            "it at once; answers are kept)"
        ) from None
    return time.monotonic() - started


def process_of(pid: int, started: float) -> psutil.Process | None:
    """The process of that pid if it is the one that began then and has not ended."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > _SAME_START_SECONDS:
            return None
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return process


def _job_or_damage(path: Path) -> Job:
    try:
        return read_job(path)
    except SlmVllmError as error:
        return Job(path.resolve().name, path, "damaged", problem=str(error))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _ends(value: Any) -> tuple[float, float] | None:
    """An interval, of which both ends are there."""
    ends = [as_number(end) for end in value] if isinstance(value, list) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    return ends[0], ends[1]


def _interval(results: Results | None) -> tuple[float, float] | None:
    metrics = as_mapping((results or {}).get("metrics"))
    return _ends(as_mapping(metrics.get("token_recall")).get("ci95"))


def _errors(results: Results) -> int | None:
    return _count(as_mapping(results.get("counts")).get("errors"))


def _rate(results: Results | None) -> float | None:
    throughput = as_mapping((results or {}).get("throughput"))
    return as_number(throughput.get("questions_per_second"))


def _age(heartbeat: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(heartbeat)
        return max(0.0, (datetime.now(timezone.utc) - moment).total_seconds())
    except (TypeError, ValueError):
        return None

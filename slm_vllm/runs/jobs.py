"""Runs as other processes see them: found in the output folder, looked at, stopped.

All is read from the run folder, so it works from another shell, and after the process has ended.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from slm_vllm.errors import ConfigError, StorageError, reason_of
from slm_vllm.nearest import nearest

_STATE, _RESULTS = "state.json", "results.json"
_ENDED = ("finished", "interrupted", "failed")
# psutil derives the start time from clock ticks (10 ms) and the time of boot.
_SAME_START_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a run folder says of its run.

    Attributes:
        name: Name of the run.
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
        questions_per_second: From the results of a finished run.
        token_recall: From the results.
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
    problem: str | None = None

    @property
    def unfinished(self) -> bool:
        """Whether giving its command again goes on with it."""
        return self.phase in ("died", "interrupted", "failed")

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "path": str(self.path)}


def list_jobs(output_dir: Path) -> list[Job]:
    """Every run folder in `output_dir` and its sweeps, those with the latest sign of life first.

    A run whose state cannot be read is listed as "damaged".

    Raises:
        ConfigError: There is no such folder.
        StorageError: It cannot be read.
    """
    try:
        folders = _run_folders(output_dir)
    except FileNotFoundError:
        raise ConfigError(
            f"{output_dir}: there is no such folder. Say with --output-dir where the runs are"
        ) from None
    except NotADirectoryError:
        raise ConfigError(
            f"{output_dir} is a file. Say with --output-dir which folder the runs are in"
        ) from None
    except OSError as error:
        raise unreadable(output_dir, error) from None
    jobs = [_job_or_damage(path) for path in folders]
    return sorted(jobs, key=lambda job: (job.heartbeat_age is None, job.heartbeat_age or 0.0))


def _run_folders(output_dir: Path) -> list[Path]:
    """Run folders, and those one level deeper: a sweep's."""
    found = []
    for path in sorted(output_dir.iterdir()):
        if _is_run(path):
            found.append(path)
        elif path.is_dir():
            found += [inner for inner in sorted(path.iterdir()) if _is_run(inner)]
    return found


def find_job(run: str, output_dir: Path) -> Job:
    """The run of that name in `output_dir`, or in the folder that `run` is a path of.

    Raises:
        ConfigError: There is none.
        StorageError: Its files are damaged or cannot be read.
    """
    return read_job(find_folder(run, output_dir))


def find_folder(run: str, output_dir: Path) -> Path:
    """The folder of a run; its state is not looked at.

    Raises:
        ConfigError: There is none.
        StorageError: It cannot be read.
    """
    places = (output_dir / run, Path(run))
    for path in places:
        if _is_run(path):
            return path
    for path in places:
        if path.is_dir():
            raise ConfigError(
                f"{path} is not a run folder: it has neither {_STATE} nor config.hash. "
                f"`slm-vllm runs list --output-dir {output_dir}` shows the runs"
            )
    names = _run_names(output_dir)
    hint = nearest(run, names) if names else "There is no run in it; see --output-dir"
    raise ConfigError(f"there is no run '{run}' in {output_dir}. {hint}")


def read_job(path: Path) -> Job:
    """Reads a run folder.

    Raises:
        StorageError: `state.json` is missing, damaged or cannot be read.
    """
    state = _read_object(path / _STATE)
    results = read_results(path)
    phase, pid = state.get("phase"), state.get("pid")
    pid_started = state.get("pid_started")
    if (
        not isinstance(phase, str)
        or not isinstance(pid, int)
        or not isinstance(pid_started, (int, float))
        or pid <= 0
    ):
        raise _damaged(path / _STATE, "phase, pid or pid_started is missing or of another type")
    alive = process_of(pid, pid_started) is not None
    if phase not in _ENDED and not alive:
        phase = "died"
    done, total = (_count(state.get(name)) for name in ("done", "total"))
    finished = results if phase == "finished" else None
    throughput = (finished or {}).get("throughput")
    rate = throughput.get("questions_per_second") if isinstance(throughput, dict) else None
    return Job(
        name=str(state.get("name") or path.name),
        path=path,
        phase=phase,
        pid=pid,
        pid_started=float(pid_started),
        alive=alive,
        done=done,
        total=total,
        heartbeat_age=_age(state.get("heartbeat")),
        questions_per_second=rate,
        token_recall=(finished or {}).get("token_recall"),
    )


def read_results(path: Path) -> dict[str, Any] | None:
    """The content of a run folder's `results.json`, None when there is none yet.

    Raises:
        StorageError: It is damaged or cannot be read.
    """
    if not (path / _RESULTS).exists():
        return None
    return _read_object(path / _RESULTS)


def resume_hint(job: Job) -> str:
    """How to go on with a run that did not finish."""
    try:
        words = json.loads((job.path / "manifest.json").read_text(encoding="utf-8"))["command"]
        command = f"\n  slm-vllm {shlex.join(words[1:])}" if words[1] == "eval" else ""
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        command = ""
    said = f":{command}\n" if command else ". "
    return (
        f"Go on with it by giving its command again{said}"
        f"{job.path / 'config.yaml'} holds its settings; what is answered is not asked again."
    )


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
    process = None
    # A mode that is finished belongs to a process that may work on another mode still.
    if job.pid is not None and job.pid_started is not None and job.phase not in _ENDED:
        process = process_of(job.pid, job.pid_started)
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


def _is_run(path: Path) -> bool:
    try:
        return path.is_dir() and any((path / name).exists() for name in (_STATE, "config.hash"))
    except OSError as error:
        raise unreadable(path, error) from None


def _run_names(output_dir: Path) -> list[str]:
    try:
        return [path.name for path in output_dir.iterdir() if _is_run(path)]
    except OSError:
        return []


def _job_or_damage(path: Path) -> Job:
    try:
        return read_job(path)
    except StorageError as error:
        return Job(path.name, path, "damaged", problem=str(error))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(
            f"{path} is missing. The run ended before it wrote its state; give its command again"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(content, dict):
        raise _damaged(path, "not a JSON object")
    return content


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"{path} is damaged ({reason}). Answers are in predictions.jsonl beside it and not "
        "affected: giving the run's command again writes this file anew"
    )


def unreadable(path: Path, error: OSError) -> StorageError:
    """The error for a file that may not be read."""
    return StorageError(
        f"{path}: cannot be read ({reason_of(error)}). Look at its owner and permissions (ls -ld)"
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _age(heartbeat: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(heartbeat)
        return max(0.0, (datetime.now(timezone.utc) - moment).total_seconds())
    except (TypeError, ValueError):
        return None

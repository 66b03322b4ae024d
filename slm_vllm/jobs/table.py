"""Formats runs for `runs list`, `show` and `watch`."""

from __future__ import annotations

from pathlib import Path

from slm_vllm.amounts import format_clock, format_rate
from slm_vllm.jobs.job import Job


def called(job: Job, output_dir: Path) -> str:
    """What the commands take for this run: `SWEEP/CELL` for a cell of a sweep."""
    if job.path.is_relative_to(output_dir):
        return job.path.relative_to(output_dir).as_posix()
    return str(job.path)


def job_cells(job: Job) -> dict[str, str]:
    """Cells by the header of their column."""
    rate = job.questions_per_second
    return {
        "phase": job.phase,
        "done": done(job),
        "errors": "-" if job.errors is None else str(job.errors),
        "questions/s": "-" if rate is None else format_rate(rate),
        "ETA": "-" if job.eta_seconds is None else format_clock(job.eta_seconds),
        "token recall": "-" if job.token_recall is None else f"{job.token_recall:.3f}",
        "95 % interval": _interval(job),
        "heartbeat": age(job),
        "pid": "-" if job.pid is None else str(job.pid),
    }


def job_line(job: Job) -> str:
    """A run in one line."""
    cells = job_cells(job)
    templates = {
        "phase": "{}",
        "done": "{} rows",
        "errors": "{} errors",
        "questions/s": "{} questions/s",
        "ETA": "ETA {}",
        "token recall": "token recall {}",
        "95 % interval": "{}",
    }
    parts = [
        text.format(cells[name]) for name, text in templates.items() if cells[name] not in "-0"
    ]
    return "  ".join([*parts, *filter(None, (job.error, job.problem))])


def done(job: Job) -> str:
    """Rows with an answer, of all rows."""
    if job.total is None:
        return "-"
    return f"{job.done or 0}/{job.total}"


def age(job: Job) -> str:
    """Since its last sign of life."""
    seconds = job.heartbeat_age
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _interval(job: Job) -> str:
    ends = job.token_recall_ci95
    return "-" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"

"""`slm-vllm runs`: jobs under nohup, tmux or in another shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slm_vllm.cli.paths import UserPath
from slm_vllm.text_table import text_table

if TYPE_CHECKING:
    from slm_vllm.runs.jobs import Job

_FILES = {
    "results.json": "figures",
    "predictions.parquet": "questions, answers and scores",
    "predictions.json": "the same as JSON",
    "predictions.jsonl": "journal: answers as they came",
    "rejected.jsonl": "rows that could not be used",
    "experiment.log": "log",
    "config.yaml": "configuration",
    "manifest.json": "versions and hashes",
    "memory_usage.json": "memory over time",
}

_output_dir = click.option(
    "--output-dir",
    type=UserPath(path_type=Path),
    default=Path("outputs"),
    show_default=True,
    help="Where run folders are kept.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group("runs")
def command() -> None:
    """List, show, follow and stop runs.

    RUN is a name under --output-dir, or the path of a run folder.
    """


@command.command("list", epilog="Example: slm-vllm runs list --output-dir outputs")
@_output_dir
@_json
def list_runs(output_dir: Path, as_json: bool) -> None:
    """List every run, those with the latest sign of life first."""
    from slm_vllm.runs.jobs import list_jobs

    jobs = list_jobs(output_dir)
    if as_json:
        click.echo(json.dumps({"runs": [job.to_json() for job in jobs]}, ensure_ascii=False))
        return
    if not jobs:
        click.echo(f"There is no run in {output_dir}.")
        return
    header = ["run", "phase", "done", "questions/s", "token recall", "heartbeat", "pid"]
    click.echo(text_table(header, (_line(job) for job in jobs)))
    for job in jobs:
        if job.problem is not None:
            click.echo(f"{job.name}: {job.problem}")
    died = [job.name for job in jobs if job.phase == "died"]
    if died:
        click.echo(
            f"Died without finishing: {', '.join(died)}. "
            f"`slm-vllm runs show {died[0]}` says how to go on."
        )


@command.command("show", epilog="Example: slm-vllm runs show demo_demo_no_context")
@click.argument("run", type=UserPath())
@_output_dir
@_json
def show(run: str, output_dir: Path, as_json: bool) -> None:
    """Show state, results and files of RUN, and how to go on if it is not finished."""
    from slm_vllm.reporting.table import results_table
    from slm_vllm.runs.jobs import find_job, read_results, resume_hint

    job = find_job(run, output_dir)
    results = read_results(job.path)
    files = {name: what for name, what in _FILES.items() if (job.path / name).exists()}
    if as_json:
        content: dict[str, Any] = {"run": job.to_json(), "results": results}
        content["files"] = [str(job.path / name) for name in files]
        click.echo(json.dumps(content, ensure_ascii=False))
        return
    click.echo(f"{job.name}: {job.phase}, {_done(job)} rows, heartbeat {_age(job)} ago")
    click.echo(f"process {job.pid}: {'running' if job.alive else 'ended'}")
    if results is not None:
        click.echo("" if job.phase == "finished" else "\nResults of the last finished run:")
        try:
            click.echo(results_table([results]))
        except (KeyError, TypeError):
            click.echo(f"{job.path / 'results.json'} has another layout; read it as it is.")
    click.echo(f"\nFiles in {job.path}:")
    for name, what in files.items():
        click.echo(f"  {name.ljust(20)} {what}")
    if job.unfinished:
        click.echo(f"\n{resume_hint(job)}")


@command.command("tail", epilog="Example: slm-vllm runs tail demo_demo_no_context --follow")
@click.argument("run", type=UserPath())
@_output_dir
@click.option("-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run's process ends.")
def tail(run: str, output_dir: Path, lines: int, follow: bool) -> None:
    """Print the end of RUN's log."""
    from slm_vllm.runs.jobs import find_folder, find_job
    from slm_vllm.runs.log_tail import LogFollower, follow_log, last_lines

    folder = find_folder(run, output_dir)
    log = folder / "experiment.log"
    if not follow:
        for line in last_lines(log, lines):
            click.echo(line)
        return
    job = find_job(run, output_dir)
    follower = LogFollower(log, lines)
    try:
        for text in follow_log(job, follower):
            click.echo(text, nl=False)
    except KeyboardInterrupt:
        # Ends the look at the run, not the run.
        return
    finally:
        follower.close()
    click.echo(f"{job.name}: {find_job(run, output_dir).phase}", err=True)


@command.command("stop", epilog="Example: slm-vllm runs stop demo_demo_no_context")
@click.argument("run", type=UserPath())
@_output_dir
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Longest wait for its end, in seconds.",
)
@_json
def stop(run: str, output_dir: Path, timeout: float, as_json: bool) -> None:
    """Stop RUN: it finishes what is in flight and keeps all answers.

    The modes of one command share a process; all of them stop.
    """
    from slm_vllm.runs.jobs import find_job, resume_hint, stop_job

    seconds = stop_job(find_job(run, output_dir), timeout)
    job = find_job(run, output_dir)
    if as_json:
        click.echo(json.dumps({"run": job.to_json(), "seconds": round(seconds, 2)}))
        return
    click.echo(f"{job.name}: process {job.pid} has ended after {seconds:.1f} s ({job.phase}).")
    if job.unfinished:
        click.echo(resume_hint(job))


def _line(job: Job) -> list[str]:
    rate, recall = job.questions_per_second, job.token_recall
    return [
        job.name,
        job.phase,
        _done(job),
        "-" if rate is None else f"{rate:.1f}",
        "-" if recall is None else f"{recall:.3f}",
        _age(job),
        "-" if job.pid is None else str(job.pid),
    ]


def _done(job: Job) -> str:
    if job.total is None:
        return "-"
    return f"{job.done or 0}/{job.total}"


def _age(job: Job) -> str:
    seconds = job.heartbeat_age
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

"""`slm-vllm runs`: jobs under nohup, tmux or in another shell."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slm_vllm.cli.options import JSON, OUTPUT_DIR, RUNS, echo_json
from slm_vllm.cli.paths import UserPath
from slm_vllm.rundir import names
from slm_vllm.text_table import text_table

if TYPE_CHECKING:
    from slm_vllm.jobs.job import Job
    from slm_vllm.jobs.overview import Overview


@click.group("runs")
def command() -> None:
    """List, watch, show, follow and stop runs.

    RUN is a name under --output-dir, a path, a glob, or a folder that holds runs (a sweep).

    \b
    Examples:
      slm-vllm runs list
      slm-vllm runs show demo_demo_oracle
    """


@command.command(
    "list",
    epilog="""\b
Examples:
  slm-vllm runs list
  slm-vllm runs list night 'nq_*' --output-dir outputs""",
)
@click.argument("runs", type=UserPath(), nargs=-1, metavar="[RUN]...")
@OUTPUT_DIR
@JSON
def list_runs(runs: tuple[str, ...], output_dir: Path, as_json: bool) -> None:
    """List every RUN (all by default), the most recently active first."""
    from slm_vllm.jobs.job import by_sign_of_life, find_jobs, list_jobs
    from slm_vllm.jobs.table import called, job_cells

    jobs = by_sign_of_life(find_jobs(runs, output_dir)) if runs else list_jobs(output_dir)
    if as_json:
        echo_json({"runs": [job.to_json() for job in jobs]})
        return
    if not jobs:
        click.echo(f"There is no run in {output_dir}.")
        return
    names = {job.path: called(job, output_dir) for job in jobs}
    rows = [{"run": names[job.path], **job_cells(job)} for job in jobs]
    click.echo(text_table(list(rows[0]), (list(row.values()) for row in rows)))
    for job in jobs:
        if job.problem is not None:
            click.echo(f"{names[job.path]}: {job.problem}")
    died = [names[job.path] for job in jobs if job.phase == "died"]
    if died:
        click.echo(
            f"Died without finishing: {', '.join(died)}. "
            f"`slm-vllm runs show {died[0]}` says how to resume it."
        )


@command.command(
    "watch",
    epilog="""\b
Examples:
  slm-vllm runs watch
  slm-vllm runs watch night --output-dir outputs
  slm-vllm runs watch --once""",
)
@click.argument("runs", type=UserPath(), nargs=-1, metavar="[RUN]...")
@OUTPUT_DIR
@click.option("--once", is_flag=True, help="Print the current state once and exit.")
@click.option("--keep", is_flag=True, help="Keep watching when nothing runs any more.")
def watch(runs: tuple[str, ...], output_dir: Path, once: bool, keep: bool) -> None:
    """Show every RUN (all by default) on one screen, live.

    Shows rate, time left, token recall with its interval, memory, errors and last activity. q or
    Ctrl-C end the display and leave the runs alone; it ends by itself when nothing runs. Where the
    output is no terminal, changes are printed every ten seconds.
    """
    from slm_vllm.jobs.overview import take_overview
    from slm_vllm.jobs.watch import overview_text, watch_lines, watch_screen
    from slm_vllm.monitoring.machine import Machine

    with Machine() as machine, suppress(KeyboardInterrupt):

        def look() -> Overview:
            return take_overview(runs, output_dir, machine)

        if once:
            click.echo(overview_text(look(), output_dir))
            return
        from rich.console import Console

        console = Console()
        if console.is_terminal and not console.is_dumb_terminal:
            watch_screen(look, output_dir, console, keep=keep)
        else:
            watch_lines(look, output_dir, click.echo, keep=keep)


@command.command("show", epilog="Example: slm-vllm runs show demo_demo_no_context")
@RUNS
@OUTPUT_DIR
@JSON
def show(runs: tuple[str, ...], output_dir: Path, as_json: bool) -> None:
    """Show state, results and files of RUN, and how to resume it."""
    from slm_vllm.jobs.job import find_jobs

    jobs = find_jobs(runs, output_dir)
    if as_json:
        content = [_content(job) for job in jobs]
        found = content[0] if len(content) == 1 else {"runs": content}
        echo_json(found)
        return
    click.echo("\n\n".join(_shown(job) for job in jobs))


@command.command("tail", epilog="Example: slm-vllm runs tail demo_demo_no_context --follow")
@click.argument("run", type=UserPath())
@OUTPUT_DIR
@click.option("-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Keep printing until the run's process ends.")
def tail(run: str, output_dir: Path, lines: int, follow: bool) -> None:
    """Print the end of RUN's log."""
    from slm_vllm.jobs.job import read_job
    from slm_vllm.jobs.log_tail import LogFollower, follow_log, last_lines
    from slm_vllm.rundir.lookup import find_run

    folder = find_run(run, output_dir)
    log = folder / names.LOG
    if not follow:
        for line in last_lines(log, lines):
            click.echo(line)
        return
    job = read_job(folder)
    follower = LogFollower(log, lines)
    try:
        for text in follow_log(job, follower):
            click.echo(text, nl=False)
    except KeyboardInterrupt:
        # Ends the look at the run, not the run.
        return
    finally:
        follower.close()
    click.echo(f"{job.name}: {read_job(folder).phase}", err=True)


@command.command("stop", epilog="Example: slm-vllm runs stop demo_demo_no_context")
@RUNS
@OUTPUT_DIR
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Longest wait for the run to stop, in seconds.",
)
@JSON
def stop(runs: tuple[str, ...], output_dir: Path, timeout: float, as_json: bool) -> None:
    """Stop RUN: it finishes what is in flight and keeps all answers.

    The modes of one command share a process; all of them stop.
    """
    from slm_vllm.jobs.job import find_jobs, read_job, resume_hint, stop_jobs

    stopped = stop_jobs(find_jobs(runs, output_dir), timeout)
    ended = [(read_job(job.path), seconds) for job, seconds in stopped]
    if as_json:
        content = [{"run": job.to_json(), "seconds": round(s, 2)} for job, s in ended]
        echo_json(content[0] if len(content) == 1 else {"runs": content})
        return
    for job, seconds in ended:
        click.echo(f"{job.name}: process {job.pid} has ended after {seconds:.1f} s ({job.phase}).")
        if job.unfinished:
            click.echo(resume_hint(job))


def _files(job: Job) -> dict[str, str]:
    """The files of a run that are meant to be read, and what is in them."""
    return {name: what for name, what in names.DESCRIBED.items() if (job.path / name).exists()}


def _content(job: Job) -> dict[str, Any]:
    from slm_vllm.rundir.files import if_readable, read_results

    files = [str(job.path / name) for name in _files(job)]
    results = if_readable(read_results, job.path)
    return {"run": job.to_json(), "results": results, "files": files}


def _shown(job: Job) -> str:
    from slm_vllm.jobs.job import resume_hint
    from slm_vllm.jobs.table import age, done
    from slm_vllm.reporting.table import results_table
    from slm_vllm.rundir.files import if_readable, read_results

    if job.problem is not None:
        return f"{job.name}: {job.problem}"
    lines = [f"{job.name}: {job.phase}, {done(job)} rows"]
    if job.heartbeat_age is not None:
        lines[0] += f", heartbeat {age(job)} ago"
    if job.error is not None:
        lines.append(f"Error: {job.error}")
    if job.pid is not None:
        lines.append(f"process {job.pid}: {'running' if job.alive else 'ended'}")
    if (results := if_readable(read_results, job.path)) is not None:
        lines.append("" if job.phase == "finished" else "\nResults of the last finished run:")
        try:
            lines.append(results_table([{**results, "name": job.name}]))
        except (KeyError, TypeError):
            lines.append(f"{job.path / names.RESULTS} has another layout; read it as it is.")
    lines.append(f"\nFiles in {job.path}:")
    lines += [f"  {name.ljust(20)} {what}" for name, what in _files(job).items()]
    if job.unfinished:
        lines.append(f"\n{resume_hint(job)}")
    return "\n".join(lines)

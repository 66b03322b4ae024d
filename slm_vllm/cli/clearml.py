"""`slm-vllm clearml`: is the server there, and does it have every run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from slm_vllm.cli.findings import show_finding
from slm_vllm.cli.paths import UserPath


@click.group("clearml")
def command() -> None:
    """Check the ClearML server, and publish runs that could not be published."""


@command.command(epilog="Example: slm-vllm clearml check")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(as_json: bool) -> None:
    """Log in, make and delete a task, store and delete an artifact.

    Ends within a minute, whatever the server does; with exit code 5 when a step fails.
    """
    from slm_vllm.config.schema import TrackingConfig
    from slm_vllm.tracking.clearml.check import check_clearml

    settings = TrackingConfig()
    findings = check_clearml(settings.project, settings.output_uri)
    failed = any(finding.status == "fail" for finding in findings)
    if as_json:
        content = {"ok": not failed, "checks": [finding.to_json() for finding in findings]}
        click.echo(json.dumps(content, ensure_ascii=False))
    else:
        for finding in findings:
            show_finding(finding, width=max(len(finding.name) for finding in findings))
    if failed:
        raise click.exceptions.Exit(5)


@command.command(
    epilog="""\b
Examples:
  slm-vllm clearml sync demo_demo_oracle
  slm-vllm clearml sync outputs/night/*"""
)
@click.argument("runs", type=UserPath(), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output-dir",
    type=UserPath(path_type=Path),
    default=Path("outputs"),
    show_default=True,
    help="Where run folders are kept.",
)
@click.option(
    "--timeout", type=float, default=300.0, show_default=True, help="Seconds for each run."
)
def sync(runs: tuple[str, ...], output_dir: Path, timeout: float) -> None:
    """Publish what a server does not have yet; nothing is published twice.

    RUN is a name under --output-dir, or the path of a run folder. A finished run that was not
    tracked at all is published whole.
    """
    from slm_vllm.errors import ConfigError
    from slm_vllm.runs.jobs import find_job
    from slm_vllm.tracking.sync import sync_run

    jobs = [find_job(run, output_dir) for run in runs]
    for job in jobs:
        if job.alive and job.phase not in ("finished", "interrupted", "failed"):
            raise ConfigError(f"{job.name} is running and publishes itself (pid {job.pid})")
    delivered = [sync_run(job.path, timeout, click.echo) for job in jobs]
    if not all(delivered):
        raise click.exceptions.Exit(5)

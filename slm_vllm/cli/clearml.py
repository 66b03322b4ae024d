"""`slm-vllm clearml`: checks the server, and publishes runs it lacks."""

from __future__ import annotations

from pathlib import Path

import click

from slm_vllm.cli.findings import show_findings
from slm_vllm.cli.options import CONFIG_DIR, JSON, OUTPUT_DIR, OVERRIDES, RUNS


@click.group("clearml")
def command() -> None:
    """Check the ClearML server, and publish runs that could not be published.

    \b
    Examples:
      slm-vllm clearml check
      slm-vllm clearml sync demo_demo_oracle
    """


@command.command(epilog="Example: slm-vllm clearml check")
@OVERRIDES
@CONFIG_DIR
@JSON
def check(overrides: tuple[str, ...], config_dir: str | None, as_json: bool) -> None:
    """Check log-in, a task and an artifact, step by step.

    Task and artifact are deleted again; it says where the artifact was stored. Settings
    (tracking.project, tracking.output_uri) are those of a run with the same KEY=VALUE. Ends within
    a minute, whatever the server does; with exit code 5 when a step fails.
    """
    from slm_vllm.config.compose import compose_config
    from slm_vllm.tracking.clearml.check import check_clearml

    settings = compose_config(overrides, config_dir).tracking
    findings = check_clearml(settings.project, settings.output_uri)
    if not show_findings(findings, as_json=as_json):
        raise click.exceptions.Exit(5)


@command.command(
    epilog="""\b
Examples:
  slm-vllm clearml sync demo_demo_oracle
  slm-vllm clearml sync night 'nq_*'"""
)
@RUNS
@OUTPUT_DIR
@click.option(
    "--timeout",
    type=float,
    default=300.0,
    show_default=True,
    help="Time limit for each run, in seconds.",
)
def sync(runs: tuple[str, ...], output_dir: Path, timeout: float) -> None:
    """Publish what the server does not have yet.

    Nothing is published twice. RUN is a name under --output-dir, a path, a glob, or a folder that
    holds runs (a sweep). A finished run that was not tracked at all is published as a whole.
    """
    from slm_vllm.errors import ConfigError
    from slm_vllm.jobs.job import find_jobs
    from slm_vllm.tracking.clearml.sync import sync_run

    jobs = find_jobs(runs, output_dir)
    for job in jobs:
        if job.running:
            raise ConfigError(f"{job.name} is running and publishes itself (pid {job.pid})")
    delivered = [sync_run(job.path, timeout, click.echo) for job in jobs]
    if not all(delivered):
        raise click.exceptions.Exit(5)

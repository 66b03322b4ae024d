"""`slm-vllm clearml`: is the server there, and does it have every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.group("clearml")
def command() -> None:
    """Check the ClearML server, and publish runs that could not be published."""


@command.command(epilog="Example: slm-vllm clearml check")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(as_json: bool) -> None:
    """Log in, make a task and delete it."""
    import os

    from slm_vllm.errors import ConfigError
    from slm_vllm.tracking.clearml_api import ClearMLApi
    from slm_vllm.tracking.clearml_server import check_task
    from slm_vllm.tracking.clearml_settings import find_clearml

    settings = find_clearml()
    if settings.source is None:
        why = f" ({settings.problem})" if settings.problem else ""
        raise ConfigError(
            f"ClearML is not configured{why}. Set CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and "
            "CLEARML_API_SECRET_KEY in the environment or in .env, or name a file with "
            "CLEARML_CONFIG_FILE"
        )
    os.environ.update(settings.environment)
    api = ClearMLApi()
    facts: dict[str, Any] = {
        "configured_by": settings.source,
        "server": api.host,
        "web": api.web,
        "server_version": api.server_version,
        "api_version": api.api_version,
        "files_server": api.files_server,
    }
    task = check_task(api, "slm-experiments")
    facts["task_made_and_deleted"] = task
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' ').ljust(22)} {value}")
    click.echo("ClearML works.")


@command.command(
    epilog="""\b
Examples:
  slm-vllm clearml sync demo_demo_oracle
  slm-vllm clearml sync outputs/night/*"""
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
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

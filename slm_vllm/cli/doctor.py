"""`slm-vllm doctor`: checks this machine, with a fix for each problem."""

from __future__ import annotations

from pathlib import Path

import click

from slm_vllm.cli.findings import show_findings
from slm_vllm.cli.options import JSON, OUTPUT_DIR, cache_dir_option

_EPILOG = """\b
Examples:
  slm-vllm doctor
  slm-vllm doctor --deep --json

Exit code 1 when a line says fail, else 0. Nothing is changed, and without --deep no
connection is made."""


@click.command("doctor", epilog=_EPILOG)
@click.option("--deep", is_flag=True, help="Also import torch and vLLM, and connect to the bucket.")
@OUTPUT_DIR
@cache_dir_option("Where prepared models are kept.")
@JSON
def command(deep: bool, output_dir: Path, cache_dir: Path, as_json: bool) -> None:
    """Check GPU, vLLM and torch builds, memory, disk, CPU, models, data, S3 and ClearML."""
    from slm_vllm.doctor.checks import run_checks

    findings = run_checks(deep=deep, output_dir=output_dir, cache_dir=cache_dir)
    if not show_findings(findings, as_json=as_json):
        raise click.exceptions.Exit(1)

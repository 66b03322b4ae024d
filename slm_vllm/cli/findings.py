"""How `doctor`, `s3 test` and `clearml check` show what they found."""

from __future__ import annotations

import click

from slm_vllm.finding import Finding

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "bright_black"}


def show_finding(finding: Finding, width: int) -> None:
    """Prints a finding, and in a line of its own what to do.

    Args:
        finding: What was found.
        width: Characters of the longest name of the report.
    """
    status = click.style(f"{finding.status:<7}", fg=_COLORS[finding.status])
    click.echo(f"{status}  {finding.name:<{width}}  {finding.found}".rstrip())
    if finding.fix:
        click.echo(f"{'':<{width + 11}}-> {finding.fix}")

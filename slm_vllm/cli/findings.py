"""Prints the findings of `doctor`, `s3 test` and `clearml check`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from slm_vllm.cli.options import echo_json
from slm_vllm.finding import Finding

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "bright_black"}


def show_findings(findings: Sequence[Finding], *, as_json: bool) -> bool:
    """Prints all findings of a check, and returns whether none of them is a failure."""
    is_ok = all(finding.status != "fail" for finding in findings)
    if as_json:
        echo_json({"ok": is_ok, "checks": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            show_finding(finding, width=max(len(finding.name) for finding in findings))
    return is_ok


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

"""Options and arguments that several commands share, and how they print JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from slm_vllm.cli.paths import UserPath

RUNS = click.argument("runs", type=UserPath(), nargs=-1, required=True, metavar="RUN...")
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
OUTPUT_DIR = click.option(
    "--output-dir",
    type=UserPath(path_type=Path),
    default=Path("outputs"),
    show_default=True,
    help="Where run folders are kept.",
)
CONFIG_DIR = click.option(
    "--config-dir", type=UserPath(), help="A folder with configuration groups of your own."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def echo_json(content: Any) -> None:
    """Prints a value as JSON in one line on standard output."""
    click.echo(json.dumps(content, ensure_ascii=False))

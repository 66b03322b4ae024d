"""Options and arguments that several commands share, and how they print JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
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

Decorator = Callable[[Any], Any]


def cache_dir_option(what: str) -> Decorator:
    """`--cache-dir` of a command for what is kept there."""
    return click.option(
        "--cache-dir",
        type=UserPath(path_type=Path),
        default=Path(".cache"),
        show_default=True,
        help=what,
    )


def together(*options: Decorator) -> Decorator:
    """Options of several commands as one decorator, in the order of their help."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def echo_json(content: Any) -> None:
    """Prints a value as JSON in one line on standard output."""
    click.echo(json.dumps(content, ensure_ascii=False))

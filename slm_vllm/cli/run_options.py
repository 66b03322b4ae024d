"""How commands are told which runs are meant."""

from __future__ import annotations

from pathlib import Path

import click

from slm_vllm.cli.paths import UserPath

RUNS = click.argument("runs", type=UserPath(), nargs=-1, required=True, metavar="RUN...")
OUTPUT_DIR = click.option(
    "--output-dir",
    type=UserPath(path_type=Path),
    default=Path("outputs"),
    show_default=True,
    help="Where run folders are kept.",
)

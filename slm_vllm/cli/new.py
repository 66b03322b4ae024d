"""`slm-vllm new`: creates a plug-in."""

from __future__ import annotations

from pathlib import Path

import click

from slm_vllm.cli.paths import UserPath
from slm_vllm.skeletons.writing import KINDS, usage, write_skeleton


@click.command("new", epilog="Example: slm-vllm new dataset my_questions")
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("name")
@click.option(
    "--config-dir",
    type=UserPath(),
    default="configs",
    show_default=True,
    help="Folder of your configuration; created if it is missing.",
)
def command(kind: str, name: str, config_dir: str) -> None:
    """Write a working plug-in with a test into CONFIG_DIR/plugins.

    docs/extending.md describes the interface of each kind.
    """
    written = write_skeleton(kind, name, Path(config_dir))
    for path in written:
        click.echo(f"Written: {path}")
    click.echo(f"Test it:  python -m pytest {written[1]}")
    if words := usage(kind, name):
        click.echo(f"Use it:   slm-vllm eval --config-dir {config_dir} {words}")
    else:
        click.echo("Every run with this configuration has it.")

"""`slm-vllm adopt` and `explain`: from the earlier scripts to the commands of today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from slm_vllm.cli.paths import UserPath

if TYPE_CHECKING:
    from slm_vllm.adopt.checkout import OldCheckout
    from slm_vllm.adopt.takeover import Takeover

_FOLDER = UserPath(path_type=Path, file_okay=False)


@click.command("adopt", epilog="Example: slm-vllm adopt ../old_checkout --dry-run")
@click.argument("checkout", type=_FOLDER, metavar="OLD_CHECKOUT")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--config-dir",
    type=_FOLDER,
    default=Path("adopted"),
    show_default=True,
    help="Where the converted configuration is written.",
)
@click.option(
    "--output-dir",
    type=_FOLDER,
    default=Path("outputs"),
    show_default=True,
    help="Its runs are written to OUTPUT_DIR/earlier.",
)
def command(checkout: Path, dry_run: bool, config_dir: Path, output_dir: Path) -> None:
    """Import configuration, data and runs of a checkout of the earlier scripts.

    The old files are only read. Keys and passwords stay where they are.
    """
    from slm_vllm.adopt.checkout import OldCheckout
    from slm_vllm.adopt.takeover import Takeover

    takeover = Takeover(OldCheckout.open(checkout), config_dir, output_dir / "earlier")
    click.echo(f"{takeover.checkout.path}{' (dry run: nothing is written)' if dry_run else ''}")
    _configuration(takeover, dry_run)
    _data(takeover.checkout)
    _secrets(takeover.checkout)
    names = _runs(takeover, dry_run)
    if not dry_run:
        click.echo("Next")
        click.echo(f"  slm-vllm eval --config-dir {config_dir} --samples 10 --no-clearml")
        if names:
            click.echo(f"  slm-vllm compare earlier/{names[0]} NEW_RUN")


@click.command(
    "explain",
    epilog="""\b
Example:
  slm-vllm explain "python run_experiment_simple.py experiment_mode=no_context\"""",
)
@click.argument("old_command", metavar="COMMAND")
def explain_command(old_command: str) -> None:
    """Print the current command for one of the earlier scripts."""
    from slm_vllm.adopt.commands import explain

    click.echo(explain(old_command))


def _configuration(takeover: Takeover, dry_run: bool) -> None:
    made = takeover.configuration()
    problem = None if dry_run else takeover.write_configuration(made)
    click.echo(f"Configuration: {len(made.files)} files in {takeover.config_dir}")
    for name in sorted(made.files):
        click.echo(f"  {takeover.config_dir / name}")
    for line in made.notes:
        click.echo(f"  {line}")
    if problem is not None:
        click.echo(f"  It does not compose yet: {problem}")


def _data(checkout: OldCheckout) -> None:
    click.echo(
        "Data" if checkout.data else "Data: none found; slm-vllm s3 pull both --bucket BUCKET"
    )
    for kind, file in checkout.data.items():
        click.echo(f"  {kind}: {file}")


def _secrets(checkout: OldCheckout) -> None:
    if not (checkout.variables or checkout.clearml_conf):
        return
    click.echo("Access, not copied")
    if checkout.variables:
        click.echo(f"  .env sets {', '.join(checkout.variables)}: cp {checkout.path}/.env .env")
    if checkout.clearml_conf:
        click.echo(f"  export CLEARML_CONFIG_FILE={checkout.clearml_conf}")


def _runs(takeover: Takeover, dry_run: bool) -> list[str]:
    """Takes the runs over and returns the names of those that are there now."""
    names = []
    click.echo("Runs" if takeover.checkout.run_folders else "Runs: none in outputs/")
    for run in takeover.runs():
        if isinstance(run, str):
            click.echo(f"  left out: {run}")
            continue
        names.append(run.name)
        place = takeover.place(run)
        about = f"{run.model}, {run.dataset}, {run.mode}, {len(run.rows):,} predictions"
        if dry_run:
            click.echo(f"  {place}: {about}, token recall {_figure(run.token_recall)}")
            continue
        taken = takeover.take(run)
        if taken is None:
            click.echo(f"  {place}: is there already")
            continue
        click.echo(
            f"  {place}: {about}, token recall {_figure(taken.before)} then, "
            f"{_figure(taken.recall)} rescored; {taken.matched:,} questions found in the dataset"
        )
    return names


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"

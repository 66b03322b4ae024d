"""`slm-vllm sweep`: a grid of experiments in one command."""

from __future__ import annotations

import sys
from typing import Any

import click

from slm_vllm.cli.options import CONFIG_DIR, OVERRIDES, echo_json
from slm_vllm.cli.paths import UserPath

_EPILOG = """\b
Examples:
  slm-vllm sweep --models smollm2_135m,qwen_0.6b --datasets nq,simple_qa \\
      --modes no_context,oracle,retriever --retrievers bm25,hybrid --name night
  slm-vllm sweep --models demo --datasets demo --modes retriever --top-k 1,3,5,10 --dry-run
  slm-vllm sweep --file night.yaml

A sweep file has these keys: models, datasets, modes, retrievers, top_k (lists),
overrides (a list of KEY=VALUE), name, samples. Give the same command again to run
what is not done. Exit codes are those of eval; the first failed cell's when one failed."""


@click.command("sweep", epilog=_EPILOG)
@click.option("--models", help="Models as for eval --model, separated by commas.")
@click.option("--datasets", help="Datasets as for eval --dataset, separated by commas.")
@click.option("--modes", help="no_context, oracle, retriever, separated by commas.")
@click.option("--retrievers", help="Retrievers of the modes that search (default: bm25).")
@click.option("--top-k", help="Passages in the prompt, e.g. 1,3,5,10; crossed with the retrievers.")
@click.option("--file", "file", type=UserPath(), help="A YAML file with the sweep.")
@click.option("--samples", type=click.IntRange(min=1), help="Only the first N rows of each.")
@click.option("--name", help="Folder of the sweep (default: sweep).")
@click.option("--output-dir", type=UserPath(), help="Where sweeps are kept (default: outputs).")
@CONFIG_DIR
@click.option("--dry-run", is_flag=True, help="Print the plan and run nothing.")
@click.option("--race", is_flag=True, help="Stop models early that are certainly not the best.")
@click.option("--overwrite", is_flag=True, help="Replace earlier runs of the same cells.")
@click.option(
    "--retry-errors", is_flag=True, help="Ask the failed questions of earlier runs again."
)
@click.option("--no-clearml", is_flag=True, help="Do not publish the runs to ClearML.")
@click.option("--json", "as_json", is_flag=True, help="Print plan or results as one JSON object.")
@OVERRIDES
def command(
    dry_run: bool,
    race: bool,
    overwrite: bool,
    retry_errors: bool,
    no_clearml: bool,
    as_json: bool,
    **words: Any,
) -> None:
    """Run every combination of models, datasets, modes, retrievers and numbers of passages.

    Each model is loaded once and each index is built once; a cell that fails is recorded and the
    others still run. Results are written to OUTPUT_DIR/NAME, one run folder for each cell.
    """
    from slm_vllm.judging.judge_at_end import judge_at_end
    from slm_vllm.runs.options import RunOptions
    from slm_vllm.runs.signals import Interrupted
    from slm_vllm.sweeps.grid import sweep_grid
    from slm_vllm.sweeps.plan import plan_sweep
    from slm_vllm.sweeps.sweep import run_sweep
    from slm_vllm.sweeps.table import SweepTable, plan_table

    grid = sweep_grid(words)
    cells = plan_sweep(grid, overwrite=overwrite)
    then = judge_at_end([cell.config for cell in cells], words["config_dir"], own_process=True)
    if dry_run and as_json:
        plan = [{"name": c.name, "status": c.status, "rows": c.rows, "left": c.left} for c in cells]
        echo_json({"folder": str(grid.folder), "cells": plan})
        return
    click.echo(plan_table(grid, cells), err=as_json)
    if dry_run:
        return
    options = RunOptions(
        overwrite=overwrite, retry_errors=retry_errors, track=not no_clearml, then=then
    )
    table = SweepTable(cells) if sys.stderr.isatty() else None
    try:
        results = run_sweep(
            cells,
            grid.folder,
            options,
            quiet=table is not None,
            watch=table.show if table is not None else None,
            race=race,
        )
    except Interrupted as stop:
        click.echo(stop.message(overwrite=overwrite), err=True)
        raise click.exceptions.Exit(stop.exit_code) from None
    _report(results, str(grid.folder), as_json)


def _report(results: list[dict[str, Any]], folder: str, as_json: bool) -> None:
    from slm_vllm.reporting.table import results_table

    failed = [result for result in results if "error" in result]
    if as_json:
        echo_json({"folder": folder, "runs": results})
    else:
        finished = [result for result in results if "error" not in result]
        if finished:
            click.echo(results_table(finished))
        for result in failed:
            click.echo(f"{result['name']} failed: {result['error']}", err=True)
        further = f"; compare with: slm-vllm compare {folder}" if len(finished) > 1 else ""
        click.echo(f"Written to {folder}{further}")
    if failed:
        raise click.exceptions.Exit(failed[0]["exit_code"])

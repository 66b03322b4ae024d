"""`slm-vllm compare`: compares runs question by question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from slm_vllm.cli.options import OUTPUT_DIR, RUNS
from slm_vllm.cli.paths import UserPath, make_folder

_EPILOG = """\b
Examples:
  slm-vllm compare demo_demo_no_context demo_demo_retriever demo_demo_oracle
  slm-vllm compare outputs/night --baseline smollm2_360m_nq_no_context
  slm-vllm compare 'outputs/*_nq_*' --metric exact_match --format latex --output table.tex
  slm-vllm compare small_model large_model --plan --difference 0.02"""


@click.command("compare", epilog=_EPILOG)
@RUNS
@click.option("--metric", default="token_recall", show_default=True, help="A metric of the runs.")
@click.option(
    "--baseline",
    type=UserPath(),
    metavar="RUN",
    help="The run that the others are compared with (default: the first).",
)
@click.option("--intersect", is_flag=True, help="Compare on the questions that all runs share.")
@click.option(
    "--allow-different",
    is_flag=True,
    help="Compare even if prompts or dataset files differ.",
)
@click.option(
    "--plan",
    is_flag=True,
    help="Estimate how many questions a difference needs, from the variance of these runs.",
)
@click.option(
    "--difference",
    "differences",
    type=float,
    multiple=True,
    help="With --plan: the difference to detect.",
)
@click.option("--power", type=float, help="With --plan: the power of the test (0.8).")
@click.option("--alpha", type=float, help="With --plan: the level of the test (0.05).")
@click.option(
    "--correlation",
    type=float,
    help="With --plan and one run: the correlation to assume between two runs (0.5).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "csv", "json", "latex"]),
    default="terminal",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--output", type=UserPath(dir_okay=False, path_type=Path), help="Write to this file.")
@OUTPUT_DIR
def command(
    runs: tuple[str, ...],
    metric: str,
    baseline: str | None,
    intersect: bool,
    allow_different: bool,
    plan: bool,
    form: str,
    as_json: bool,
    output: Path | None,
    output_dir: Path,
    **planned: Any,
) -> None:
    """Compare finished runs with a baseline.

    RUN is a name under --output-dir, a path, a glob, or a folder that holds runs (a sweep). Runs
    are paired by question: differences with bootstrap intervals, permutation p-values
    (Holm-corrected when there are several), McNemar's test for 0/1 metrics, what context gained
    and destroyed.
    """
    from slm_vllm.errors import ConfigError
    from slm_vllm.reporting.alignment import COLUMNS
    from slm_vllm.reporting.comparison import check_metric, compare_runs
    from slm_vllm.reporting.comparison_tables import render
    from slm_vllm.reporting.power_plan import plan_power, render_plan
    from slm_vllm.rundir.lookup import find_finished, find_run
    from slm_vllm.rundir.reading import load_run

    check_metric(metric)
    if not plan and any(value not in (None, ()) for value in planned.values()):
        raise ConfigError("--difference, --power, --alpha and --correlation go with --plan")
    paths = find_finished(runs, output_dir)
    if output is not None:
        make_folder(output.parent, f"--output {output}")
    chosen = None
    if baseline is not None:
        chosen = find_run(baseline, output_dir)
        paths = [chosen, *(path for path in paths if path.resolve() != chosen.resolve())]
    loaded = [load_run(path, (*COLUMNS, metric)) for path in paths]
    pairing: dict[str, Any] = {"intersect": intersect, "allow_different": allow_different}
    form = "json" if as_json else form
    if plan:
        text = render_plan(plan_power(loaded, metric, baseline=chosen, **pairing, **planned), form)
    else:
        text = render(compare_runs(loaded, metric, baseline=chosen, **pairing), form)
    if output is None:
        click.echo(text)
    else:
        _write(output, text)


def _write(output: Path, text: str) -> None:
    from slm_vllm.durable import write_text
    from slm_vllm.errors import StorageError, reason_of

    try:
        write_text(output, text + "\n")
    except OSError as error:
        raise StorageError(f"--output {output}: cannot be written ({reason_of(error)})") from None
    click.echo(f"Written to {output}", err=True)

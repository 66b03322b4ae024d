"""`slm-vllm report`: runs as one HTML file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import click

from slm_vllm.amounts import counted, format_size
from slm_vllm.cli.options import JSON, OUTPUT_DIR, RUNS, echo_json
from slm_vllm.cli.paths import UserPath, make_folder
from slm_vllm.rundir.names import REPORT


@click.command(
    "report",
    epilog="""\b
Examples:
  slm-vllm report demo_demo_retriever
  slm-vllm report 'demo_demo_*' --output demo.html --plots plots
  slm-vllm report outputs/my_sweep""",
)
@RUNS
@click.option(
    "--output",
    type=UserPath(dir_okay=False, path_type=Path),
    help="The file to write. Default: report.html in the folder of the run or sweep, "
    "for several in the current folder.",
)
@click.option(
    "--plots",
    type=UserPath(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also write the plots there, as SVG and PNG.",
)
@OUTPUT_DIR
@JSON
def command(
    runs: tuple[str, ...],
    output: Path | None,
    plots: Path | None,
    output_dir: Path,
    as_json: bool,
) -> None:
    """Write finished runs as one HTML page with plots and all predictions.

    RUN is a name under --output-dir, a path, a glob, or a folder that holds runs (a sweep). The
    page needs no network and no other file.
    """
    from slm_vllm.reporting.drawing import require_matplotlib
    from slm_vllm.reporting.figures import write_figures
    from slm_vllm.reporting.report import build_report, write_report
    from slm_vllm.rundir.lookup import find_finished
    from slm_vllm.rundir.reading import load_run

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if plots is not None:
        require_matplotlib()
    paths = find_finished(runs, output_dir)
    target = output if output is not None else _default_output(runs, paths, output_dir)
    make_folder(target.parent, f"--output {target}")
    if plots is not None:
        make_folder(plots, f"--plots {plots}")
    report = build_report([load_run(path) for path in paths])
    write_report(report, target)
    drawn = [] if plots is None else write_figures(report.figures, plots)
    size = target.stat().st_size
    if as_json:
        facts = {
            "report": str(target),
            "bytes": size,
            "runs": [str(path) for path in paths],
            "plots": [str(path) for path in drawn],
        }
        echo_json(facts)
        return
    click.echo(f"{target}: {counted(len(paths), 'run')}, {format_size(size)}")
    if plots is not None:
        click.echo(f"{plots}: {len(report.figures)} plots, each as SVG and PNG")


def _default_output(patterns: Sequence[str], paths: Sequence[Path], output_dir: Path) -> Path:
    """In the one folder that was named, be it a run or a sweep; else here."""
    if len(patterns) == 1:
        for folder in (output_dir / patterns[0], Path(patterns[0])):
            if folder in (paths[0], *paths[0].parents):
                return folder / REPORT
    return Path(REPORT)

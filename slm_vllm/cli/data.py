"""`slm-vllm data`: converts, checks, lists and describes datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from slm_vllm.amounts import counted, format_size
from slm_vllm.cli.options import CONFIG_DIR, JSON, cache_dir_option, echo_json, together
from slm_vllm.cli.paths import UserPath

# A dataset by the name of its configuration or by its file, and how it is read.
_DATASET = together(
    click.argument("path_or_name", type=UserPath()),
    click.argument("columns", nargs=-1, metavar="[FIELD=COLUMN]..."),
    click.option(
        "--kind", help="nq, simple_qa, qa_pairs, beir or hf; detected from the file by default."
    ),
    CONFIG_DIR,
    JSON,
)


@click.group("data")
def data() -> None:
    """Convert, check, list and describe datasets.

    \b
    Example:
      slm-vllm data check data/NQ-open.dev.merged.jsonl
    """


@data.command("prepare")
@click.argument("kind", type=click.Choice(["nq", "simple_qa"]))
@click.option(
    "--input", "source", type=UserPath(), required=True, help="Raw file, compressed or not."
)
@click.option(
    "--output-dir",
    type=UserPath(),
    default="data",
    show_default=True,
    help="Where the converted files go.",
)
@click.option("--strict", is_flag=True, help="Fail at the first row that cannot be used.")
@JSON
def prepare(kind: str, source: str, output_dir: str, strict: bool, as_json: bool) -> None:
    """Convert a raw file to JSON (full, train, eval) and Parquet.

    Rows that cannot be used are written to rejected.jsonl with line and reason.

    \b
    Examples:
      slm-vllm data prepare nq --input NQ-open.dev.merged.jsonl.gz --output-dir data
      slm-vllm data prepare simple_qa --input simple_qa.csv --output-dir data --strict
    """
    from slm_vllm.datasets.convert import convert

    done = convert(kind, source, output_dir, strict=strict)
    if as_json:
        echo_json(done.to_json())
        return
    click.echo(f"{counted(done.rows, 'row')}: {done.train:,} train, {done.eval:,} eval")
    if done.rejected:
        click.echo(f"{done.rejected:,} rejected, see {Path(output_dir) / 'rejected.jsonl'}")
    for file in done.files:
        click.echo(f"  {file}  {format_size(file.stat().st_size)}")


@data.command("check")
@_DATASET
def check(as_json: bool, **named: Any) -> None:
    """Read a whole dataset and say what a run would find.

    Exit code 3 when it cannot be used.

    FIELD=COLUMN says which column holds a field (question, answers, question_id, contexts,
    documents, metadata), as dataset.options.columns.FIELD=COLUMN does for a run.

    \b
    Examples:
      slm-vllm data check demo
      slm-vllm data check data/qa_pairs.jsonl --json
      slm-vllm data check quiz.csv question=query answers=target
    """
    from slm_vllm.datasets.inspection import check_dataset
    from slm_vllm.errors import DataError

    try:
        report = check_dataset(*_locate(**named))
    except DataError as error:
        if as_json:
            echo_json({"usable": False, "path": named["path_or_name"], "error": str(error)})
        raise
    if as_json:
        echo_json(report.to_json())
        return
    click.echo(f"{report.path}: usable, read as {report.kind}")
    if report.layout:
        click.echo(f"  layout             {report.layout}")
    for label in ("rows", "rejected", "duplicates", "empty_answers"):
        click.echo(f"  {label.replace('_', ' '):<18} {getattr(report, label):,}")
    click.echo(f"  {'without contexts':<18} {report.without_contexts:,}")
    click.echo(f"  {'without documents':<18} {report.without_documents:,}")
    for label, value in report.first_row.items():
        click.echo(f"  first {label.replace('_', ' '):<12} {_shown(value)}")
    for notice in report.notices:
        click.echo(f"  {notice}")
    for row in report.first_rejected:
        click.echo(f"  line {row.line}: {row.reason}")
    if report.rejected > len(report.first_rejected):
        click.echo(f"  and {report.rejected - len(report.first_rejected):,} more")


@data.command("list")
@CONFIG_DIR
@JSON
def list_datasets(config_dir: str | None, as_json: bool) -> None:
    """List the configured datasets and whether their file is there.

    \b
    Example:
      slm-vllm data list
    """
    from slm_vllm.datasets.catalog import read_catalog

    entries = read_catalog(config_dir)
    if as_json:
        echo_json({"datasets": [entry.to_json() for entry in entries]})
        return
    for entry in entries:
        click.echo(f"{entry.name:<16} {entry.kind or '-':<10} {_presence(entry)}")


@data.command("stats")
@_DATASET
def stats(as_json: bool, **named: Any) -> None:
    """Show rows, lengths in words, and topics of the metadata.

    \b
    Example:
      slm-vllm data stats data/simple_qa_test_set_with_documents.csv
    """
    from slm_vllm.datasets.inspection import dataset_stats

    found = dataset_stats(*_locate(**named))
    if as_json:
        echo_json(found)
        return
    click.echo(f"{found['path']} ({found['kind']}): {counted(found['rows'], 'row')}")
    if found["rejected"]:
        click.echo(
            f"{found['rejected']:,} rejected; see: slm-vllm data check {named['path_or_name']}"
        )
    names = ("n", "mean", "min", "median", "p95", "max")
    click.echo(f"{'words':<12}" + "".join(f"{name:>12}" for name in names))
    for name, figures in found["lengths"].items():
        cells = (f"{figures[key]:>12,.10g}" if key in figures else f"{'-':>12}" for key in names)
        click.echo(f"{name:<12}" + "".join(cells))
    for topic, figures in found["topics"].items():
        click.echo(
            f"  {topic:<28} {figures['rows']:>7,} rows, question {figures['question_words']}, "
            f"answer {figures['answer_words']} words"
        )


@data.command("clean-cache")
@cache_dir_option("The cache_dir of runs.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@JSON
def clean_cache(cache_dir: Path, yes: bool, as_json: bool) -> None:
    """Empty the cache of downloaded and converted datasets.

    \b
    Example:
      slm-vllm data clean-cache --yes
    """
    from slm_vllm.datasets.catalog import empty_folder, folder_size

    folder = cache_dir / "datasets"
    count, size = folder_size(folder)
    found = f"{folder}: {counted(count, 'file')}, {format_size(size)}"
    click.echo(found, err=as_json)
    if count and not yes:
        click.confirm("Remove them?", abort=True, err=as_json)
    empty_folder(folder)
    if as_json:
        echo_json({"path": str(folder), "files": count, "bytes": size})
    elif count:
        click.echo("removed")


def _locate(
    path_or_name: str, kind: str | None, columns: tuple[str, ...], config_dir: str | None
) -> tuple[str, str | None, Mapping[str, Any]]:
    """Gives path, kind and options of a configured name or of a path."""
    from slm_vllm.datasets.catalog import find_dataset
    from slm_vllm.datasets.rows.fields import parse_columns

    entry = find_dataset(path_or_name, config_dir)
    options = dict(entry.options)
    if columns:
        options["columns"] = {**options.get("columns", {}), **parse_columns(columns)}
    return entry.path or path_or_name, kind or entry.kind, options


def _shown(value: str | list[str] | None) -> str:
    """Texts of a dataset on one line, each in quotes."""
    from slm_vllm.datasets.reading.records import printable

    if not value:
        return "-"
    texts = [value] if isinstance(value, str) else value
    more = f" and {len(texts) - 5:,} more" if len(texts) > 5 else ""
    return ", ".join(f'"{printable(" ".join(text.split()))}"' for text in texts[:5]) + more


def _presence(entry: Any) -> str:
    if entry.path is None:
        return "(each run gives a path)"
    if "://" in entry.path:
        return str(entry.path)
    size = entry.size
    return f"{entry.path}  {'missing' if size is None else format_size(size)}"

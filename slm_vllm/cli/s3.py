"""`slm-vllm s3`: lists a bucket, and moves datasets and files to and from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slm_vllm.amounts import counted, format_size
from slm_vllm.cli.findings import show_finding
from slm_vllm.cli.options import OUTPUT_DIR, echo_json
from slm_vllm.cli.paths import UserPath
from slm_vllm.cli.s3_options import (
    CONNECTION_OPTIONS,
    DRY_RUN_OPTION,
    FORCE_OPTION,
    PREFIX_OPTION,
    open_bucket,
    reported_transfers,
)

if TYPE_CHECKING:
    from slm_vllm.datasets.bucket_survey import FileState
    from slm_vllm.datasets.known_files import KnownFile
    from slm_vllm.finding import Finding

_PASSABLE = ("clock", "region")
"""What may be wrong and still lets requests through."""

_WHICH = click.Choice(["nq", "simple_qa", "both"])
_RAW = click.option("--raw", is_flag=True, help="Only the raw file.")
_PROCESSED = click.option("--processed", is_flag=True, help="Only the converted files.")
_DATA_DIR = click.option(
    "--data-dir",
    type=UserPath(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    help="Local folder of the dataset files.",
)


@click.group("s3")
def command() -> None:
    """List a bucket (MinIO, Amazon S3), and move datasets and files to and from it.

    Endpoint and credentials come from .env, the environment, an AWS profile and the options; the
    later ones win: CLEARML_S3_ENDPOINT, CLEARML_S3_BUCKET, CLEARML_S3_ACCESS_KEY,
    CLEARML_S3_SECRET_KEY.

    \b
    Examples:
      slm-vllm s3 test --test-operations
      slm-vllm s3 pull nq --processed
    """


@command.command("test")
@click.option("--test-operations", is_flag=True, help="Also write, read, list and delete a key.")
@click.option("--check-datasets", is_flag=True, help="Also look for the known dataset files.")
@PREFIX_OPTION
@CONNECTION_OPTIONS
def check(
    test_operations: bool, check_datasets: bool, prefix: str, as_json: bool, **given: Any
) -> None:
    """Test endpoint, TLS, clock, credentials and bucket.

    Where one fails it says what to set.

    \b
    Example:
      slm-vllm s3 test --test-operations --check-datasets
    """
    from slm_vllm.datasets.bucket_survey import survey_known
    from slm_vllm.storage.diagnosis import check_connection, check_operations

    bucket = open_bucket(given, attempts=2, read_timeout=20.0)
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            show_finding(finding, width=11)

    for finding in check_connection(bucket):
        report(finding)
    reached = all(finding.status == "ok" for finding in findings if finding.name not in _PASSABLE)
    if test_operations and reached:
        for finding in check_operations(bucket):
            report(finding)
    states = survey_known(bucket, prefix) if check_datasets and reached else []
    failed = [finding.name for finding in findings if finding.status == "fail"]
    failed += [s.key for s in states if s.problem or (s.found is None and s.file.required)]
    if as_json:
        files = [state.to_json() for state in states]
        found = [finding.to_json() for finding in findings]
        echo_json({"ok": not failed, "checks": found, "datasets": files})
    else:
        for state in states:
            click.echo(_dataset_line(state))
    _fail_if(failed, f"{len(failed)} of these failed: {', '.join(failed)}")


@command.command("ls")
@click.argument("prefix", default="")
@CONNECTION_OPTIONS
def list_objects(prefix: str, as_json: bool, **given: Any) -> None:
    """List the objects whose key begins with PREFIX: size, date, key.

    \b
    Examples:
      slm-vllm s3 ls
      slm-vllm s3 ls datasets/nq --json
    """
    bucket = open_bucket(given)
    total, listed = 0, []
    count = 0
    for item in bucket.objects(prefix):
        count, total = count + 1, total + item.size
        if as_json:
            listed.append(item.to_json())
        else:
            date = f"{item.last_modified:%Y-%m-%d %H:%M}"
            click.echo(f"{format_size(item.size):>10}  {date}  {_printable(item.key)}")
    if as_json:
        about = {"bucket": bucket.name, "prefix": prefix, "count": count, "bytes": total}
        echo_json({**about, "objects": listed})
    else:
        click.echo(f"{counted(count, 'object')}, {format_size(total)}")


@command.command("pull")
@click.argument("which", type=_WHICH, required=False)
@_RAW
@_PROCESSED
@click.option("--key", help="One object instead of a dataset.")
@click.option("--to", type=UserPath(path_type=Path), help="File or folder for --key.")
@_DATA_DIR
@PREFIX_OPTION
@FORCE_OPTION
@DRY_RUN_OPTION
@CONNECTION_OPTIONS
def pull(which: str | None, as_json: bool, **given: Any) -> None:
    """Download the files of a dataset, or one object.

    Files that are already here and identical are skipped; an interrupted download is resumed;
    every file is verified before it gets its name.

    \b
    Examples:
      slm-vllm s3 pull both
      slm-vllm s3 pull nq --processed --data-dir data
      slm-vllm s3 pull --key datasets/qa_pairs.jsonl --to data/qa_pairs.jsonl
    """
    from slm_vllm.datasets.bucket_sync import pull_known

    _one_of(which, given["key"], "--key")
    with reported_transfers(given, as_json) as (transfers, _):
        if which is not None:
            pull_known(transfers, _files(which, given), given["data_dir"])
        else:
            transfers.download(given["key"], _target(given["key"], given["to"]))


@command.command("push")
@click.argument("which", type=_WHICH, required=False)
@_RAW
@_PROCESSED
@click.option("--from", "source", type=UserPath(path_type=Path), help="One file instead.")
@click.option("--key", help="Its key; its name when left out.")
@_DATA_DIR
@PREFIX_OPTION
@FORCE_OPTION
@DRY_RUN_OPTION
@CONNECTION_OPTIONS
def push(which: str | None, as_json: bool, **given: Any) -> None:
    """Upload the files of a dataset, or one file.

    A file that is already in the bucket is skipped; a different one under its key is overwritten
    only with --force; an interrupted upload reuses the parts that arrived.

    \b
    Examples:
      slm-vllm s3 push nq --processed
      slm-vllm s3 push --from data/qa_pairs.jsonl --key datasets/qa_pairs.jsonl
    """
    from slm_vllm.datasets.bucket_sync import push_known

    _one_of(which, given["source"], "--from")
    with reported_transfers(given, as_json) as (transfers, _):
        if which is not None:
            push_known(transfers, _files(which, given), given["data_dir"])
        else:
            source: Path = given["source"]
            transfers.upload(source, given["key"] or given["prefix"] + source.name)


@command.command("process")
@click.argument("which", type=_WHICH)
@click.option("--no-upload", is_flag=True, help="Do not upload the converted files.")
@_DATA_DIR
@PREFIX_OPTION
@FORCE_OPTION
@DRY_RUN_OPTION
@CONNECTION_OPTIONS
def process(which: str, no_upload: bool, as_json: bool, **given: Any) -> None:
    """Download a raw dataset, convert it, upload the result.

    \b
    Examples:
      slm-vllm s3 process both
      slm-vllm s3 process nq --no-upload --data-dir data
    """
    from slm_vllm.datasets.bucket_sync import process as process_one
    from slm_vllm.datasets.known_files import KINDS

    with reported_transfers(given, as_json) as (transfers, report):
        for kind in KINDS if which == "both" else (which,):
            done = process_one(transfers, kind, given["data_dir"], send=not no_upload)
            if done is not None:
                report.converted(done)


@command.command("artifacts")
@click.argument("run", type=UserPath())
@OUTPUT_DIR
@click.option("--prefix", default="", help="Only keys with this prefix.")
@CONNECTION_OPTIONS
def artifacts(run: str, output_dir: Path, prefix: str, as_json: bool, **given: Any) -> None:
    """Compare what RUN left in a bucket with its folder.

    Objects and files are compared by size and hash.

    RUN is a name under --output-dir, or the path of a run folder. Without --bucket it is looked
    for where it was stored, else in CLEARML_S3_ARTIFACTS_BUCKET, else in CLEARML_S3_BUCKET.

    \b
    Example:
      slm-vllm s3 artifacts qwen_1.7b_nq_retriever
    """
    from slm_vllm.rundir.lookup import find_run
    from slm_vllm.tracking.clearml.artifacts import artifacts_bucket, find_artifacts

    folder = find_run(run, output_dir)
    given["bucket"] = given["bucket"] or artifacts_bucket(folder, given["env_file"])
    bucket = open_bucket(given)
    found = find_artifacts(bucket, folder, prefix)
    if as_json:
        items = [item.to_json() for item in found.artifacts]
        about = {"task": found.task, "earlier_tasks": list(found.earlier)}
        echo_json({**about, "artifacts": items})
    else:
        click.echo(f"task {found.task}")
        for item in found.artifacts:
            verdict = {True: f"same ({item.compared})", False: f"DIFFERS ({item.compared})"}
            state = verdict[item.same] if item.same is not None else "only in the bucket"
            click.echo(f"{format_size(item.remote.size):>10}  {state:<22}  {item.remote.key}")
        if found.earlier:
            click.echo(f"Earlier tasks of that name: {', '.join(found.earlier)}")
    differing = [item.remote.key for item in found.artifacts if item.same is False]
    _fail_if(differing, f"{len(differing)} objects differ from the files of the run")


def _one_of(which: str | None, single: object, option: str) -> None:
    if (which is None) == (single is None):
        raise click.UsageError(f"Give a dataset (nq, simple_qa, both) or {option}, one of the two.")


def _files(which: str, given: dict[str, Any]) -> list[KnownFile]:
    """The files of a dataset that are meant; of --raw and --processed neither means both."""
    from slm_vllm.datasets.known_files import known_files

    raw, processed = given["raw"], given["processed"]
    return known_files(which, raw=raw or not processed, processed=processed or not raw)


def _target(key: str, to: Path | None) -> Path:
    """The file for an object; a key never decides on a folder."""
    name = key.rpartition("/")[2]
    if to is not None and not to.is_dir():
        return to
    if name in ("", ".", ".."):
        raise click.UsageError(f"The key {key!r} ends in no file name: give one with --to.")
    return (to or Path()) / name


def _fail_if(failed: list[str], message: str) -> None:
    from slm_vllm.errors import StorageError

    if failed:
        raise StorageError(message)


def _dataset_line(state: FileState) -> str:
    if state.found is None:
        return f"{state.key}: {'MISSING' if state.file.required else 'not there (optional)'}"
    about = f"{format_size(state.found.size)}, {state.found.last_modified:%Y-%m-%d %H:%M}"
    verdict = f"NOT USABLE: {state.problem}" if state.problem else "first rows read"
    return f"{state.key}: {about}, {verdict}"


def _printable(key: str) -> str:
    """A key on one line whatever characters it holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in key)

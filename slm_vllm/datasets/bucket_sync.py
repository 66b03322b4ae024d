"""Moves the known dataset files between a bucket and a folder, and converts them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from slm_vllm.datasets.known_files import KNOWN_FILES, KnownFile, raw_file
from slm_vllm.errors import StorageError
from slm_vllm.storage.bucket import Bucket
from slm_vllm.storage.download import Transferred, download
from slm_vllm.storage.parts import TransferOptions
from slm_vllm.storage.upload import upload

Report = Callable[[Transferred], None]


def place_of(file: KnownFile, folder: Path) -> Path:
    """Where a file lies here: below a folder of its kind where teams have one, as in `data/nq/`."""
    below = folder / file.kind / file.name
    return below if below.is_file() else folder / file.name


def pull_known(
    bucket: Bucket,
    files: Iterable[KnownFile],
    folder: Path,
    prefix: str,
    options: TransferOptions,
    report: Report,
) -> None:
    """Downloads those of the files that the bucket has.

    Raises:
        StorageError: A required file is missing; the others were downloaded all the same.
    """
    missing, some = [], False
    for file in files:
        if bucket.find(prefix + file.name) is None:
            missing += [prefix + file.name] if file.required else []
            continue
        some = True
        report(download(bucket, prefix + file.name, place_of(file, folder), options))
    if missing:
        others = "The others are done. " if some else ""
        raise StorageError(
            f"{bucket.url()} lacks {', '.join(missing)}. {others}See what is there with: slm-vllm "
            "s3 ls; where the files lie below a folder of the bucket, give --prefix FOLDER/"
        )


def push_known(
    bucket: Bucket,
    files: Iterable[KnownFile],
    folder: Path,
    prefix: str,
    options: TransferOptions,
    report: Report,
) -> None:
    """Uploads those of the files that the folder has.

    Raises:
        StorageError: A required file is missing, or one in the bucket is another; what could be
            uploaded was.
    """
    missing, refused, some = [], [], False
    for file in files:
        place = place_of(file, folder)
        if not place.is_file():
            missing += [str(place)] if file.required else []
            continue
        some = True
        try:
            report(upload(bucket, place, prefix + file.name, options))
        except StorageError as error:
            if type(error) is not StorageError:
                raise
            refused.append(str(error))
    problems = list(refused)
    if missing:
        others = "The others are done. " if some else ""
        problems.append(f"{', '.join(missing)} not found. {others}Give their folder: --data-dir")
    if problems:
        raise StorageError("\n".join(problems))


def process(
    bucket: Bucket,
    kind: str,
    folder: Path,
    prefix: str,
    options: TransferOptions,
    report: Report,
    *,
    send: bool = True,
) -> Any:
    """Downloads a raw file, converts it, and uploads what came out.

    Args:
        bucket: Where the raw file is and the results go.
        kind: "nq" or "simple_qa".
        folder: Where the files lie here.
        prefix: Before each key.
        options: See `TransferOptions`; a dry run ends after the download is planned.
        report: Told of each transfer.
        send: Upload the results.

    Returns:
        The `Conversion`, or None of a dry run.
    """
    from slm_vllm.datasets.convert import convert

    raw = raw_file(kind)
    place = place_of(raw, folder)
    report(download(bucket, prefix + raw.name, place, options))
    if options.dry_run:
        return None
    done = convert(kind, place, place.parent)
    if send:
        made = {path.name for path in done.files}
        files = [file for file in KNOWN_FILES if file.name in made]
        push_known(bucket, files, folder, prefix, options, report)
    return done

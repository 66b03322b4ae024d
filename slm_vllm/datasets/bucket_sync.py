"""Moves the known dataset files between a bucket and a folder, and converts them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from slm_vllm.datasets.known_files import KNOWN_FILES, KnownFile, raw_file
from slm_vllm.errors import StorageError
from slm_vllm.storage.transfers import Transfers

if TYPE_CHECKING:
    from slm_vllm.datasets.convert import Conversion


def place_of(file: KnownFile, folder: Path) -> Path:
    """Where a file lies here: below a folder of its kind where teams have one, as in `data/nq/`."""
    below = folder / file.kind / file.name
    return below if below.is_file() else folder / file.name


def pull_known(transfers: Transfers, files: Iterable[KnownFile], folder: Path) -> None:
    """Downloads those of the files that the bucket has.

    Raises:
        StorageError: A required file is missing; the others were downloaded all the same.
    """
    bucket = transfers.bucket
    missing, some = [], False
    for file in files:
        key = transfers.prefix + file.name
        if bucket.find(key) is None:
            missing += [key] if file.required else []
            continue
        some = True
        transfers.download(key, place_of(file, folder))
    if missing:
        others = "The others are done. " if some else ""
        raise StorageError(
            f"{bucket.url()} lacks {', '.join(missing)}. {others}See what is there with: slm-vllm "
            "s3 ls; where the files lie below a folder of the bucket, give --prefix FOLDER/"
        )


def push_known(transfers: Transfers, files: Iterable[KnownFile], folder: Path) -> None:
    """Uploads those of the files that the folder has.

    Raises:
        StorageError: A required file is missing, or one in the bucket is another; what could be
            uploaded was.
    """
    missing, problems, some = [], [], False
    for file in files:
        place = place_of(file, folder)
        if not place.is_file():
            missing += [str(place)] if file.required else []
            continue
        some = True
        try:
            transfers.upload(place, transfers.prefix + file.name)
        except StorageError as error:
            if type(error) is not StorageError:
                raise
            problems.append(str(error))
    if missing:
        others = "The others are done. " if some else ""
        problems.append(f"{', '.join(missing)} not found. {others}Give their folder: --data-dir")
    if problems:
        raise StorageError("\n".join(problems))


def process(transfers: Transfers, kind: str, folder: Path, *, send: bool) -> Conversion | None:
    """Downloads a raw file, converts it, and uploads what came out.

    Args:
        transfers: A dry run ends after the download is planned.
        kind: "nq" or "simple_qa".
        folder: Where the files lie here.
        send: Upload the results.

    Returns:
        What was converted; None of a dry run.
    """
    from slm_vllm.datasets.convert import convert

    raw = raw_file(kind)
    place = place_of(raw, folder)
    transfers.download(transfers.prefix + raw.name, place)
    if transfers.options.dry_run:
        return None
    done = convert(kind, place, place.parent)
    if send:
        made = {path.name for path in done.files}
        files = [file for file in KNOWN_FILES if file.name in made]
        push_known(transfers, files, folder)
    return done

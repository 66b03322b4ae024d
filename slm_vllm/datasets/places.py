"""Where files of nq and simple_qa are searched for, and what to do if they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slm_vllm.datasets.known_files import KINDS, KNOWN_FILES, WHOLE_DATASET
from slm_vllm.errors import DataError

PACKINGS = ("", ".gz", ".zst")

_KIND_OF = {file.name: file.kind for file in KNOWN_FILES}


def found_file(path: str, kind: str | None = None) -> str | None:
    """The file that is meant by a path: itself, or where else the same dataset lies.

    A file of `known_files` that is missing is looked for in its folder and in the folder of its
    kind (`data/`, `data/nq/`), in each form that holds the same rows, the fastest first. Of a
    folder, the dataset in it is found in the same way.

    Args:
        path: What the user or the configuration names.
        kind: Its kind, where that is known.

    Returns:
        A path; None where nothing lies where a known file should.

    Raises:
        DataError: A folder holds both nq and simple_qa.
    """
    place = Path(path)
    if "://" in path or "*" in path or place.is_file():
        return path
    if place.is_dir():
        return _in_folder(place, kind) or path
    of = kind_of_file(place.name)
    if of is None:
        return path
    return next((str(file) for file in _candidates(place, of) if file.is_file()), None)


def kind_of_file(name: str) -> str | None:
    """The kind of a known file, packed or not; None for any other name."""
    return _KIND_OF.get(_unpacked(name))


def missing_dataset(path: str) -> DataError:
    """The error for a known file that `found_file` does not find: where it looked, what to type."""
    place = Path(path)
    kind = kind_of_file(place.name)
    assert kind is not None
    folders = _folders(place.parent, kind)
    forms = _forms(place, kind)
    looked = " and ".join(str(folder.absolute()) for folder in folders)
    raw = WHOLE_DATASET[kind][-1]
    to = "" if place.parent == Path("data") else f" --output-dir {place.parent}"
    pull_to = "" if place.parent == Path("data") else f" --data-dir {place.parent}"
    parts = [
        folder / file.name
        for folder in folders
        for file in KNOWN_FILES
        if file.kind == kind and file.name not in forms and (folder / file.name).is_file()
    ]
    some = f" A part of it is there: --dataset {parts[-1]}." if parts else ""
    return DataError(
        f"{path} does not exist. Looked in {looked} for {', '.join(forms)} (also "
        f"{', '.join(filter(None, PACKINGS))}).{some} Fetch them from your bucket: "
        f"slm-vllm s3 pull {kind} --bucket BUCKET{pull_to}. Or convert the raw file: "
        f"slm-vllm data prepare {kind} --input {raw}{to}. Or name the file or its folder: "
        "--dataset FOLDER"
    )


def _in_folder(folder: Path, kind: str | None) -> str | None:
    found: dict[str, str] = {}
    for of in KINDS if kind is None else (kind,) if kind in KINDS else ():
        for file in _candidates(folder / WHOLE_DATASET[of][0], of):
            if file.is_file():
                found[of] = str(file)
                break
    if len(found) > 1:
        ways = " or ".join(f"--dataset {file}" for file in found.values())
        raise DataError(f"{folder} holds {' and '.join(found)}. Say which: {ways}")
    return next(iter(found.values()), None)


def _candidates(file: Path, kind: str) -> Iterator[Path]:
    for name in _forms(file, kind):
        for folder in _folders(file.parent, kind):
            for packing in PACKINGS:
                yield folder / (name + packing)


def _forms(file: Path, kind: str) -> tuple[str, ...]:
    """The names under which the same rows may lie: a part of a dataset has one only."""
    name = _unpacked(file.name)
    return WHOLE_DATASET[kind] if name in WHOLE_DATASET[kind] else (name,)


def _folders(folder: Path, kind: str) -> tuple[Path, ...]:
    return (folder, folder.parent) if folder.name == kind else (folder, folder / kind)


def _unpacked(name: str) -> str:
    for packing in filter(None, PACKINGS):
        name = name.removesuffix(packing)
    return name

"""The configured datasets, and the cache of downloaded and converted ones."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_vllm.config.compose import group_choices, is_known, nearest_choice, read_choice
from slm_vllm.config.legacy import settings_today
from slm_vllm.datasets.places import found_file
from slm_vllm.datasets.registry import local_path
from slm_vllm.errors import ConfigError, DataError, StorageError
from slm_vllm.paths import expanded


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One dataset configuration.

    Attributes:
        name: Its file name without `.yaml`: what `--dataset` takes.
        kind: The dataset class, or None to find it from the file.
        path: The file, relative to the working directory, where it was found if it is not where
            the configuration says; None where each run gives its own.
        options: Further arguments of the class, the split among them.
    """

    name: str
    kind: str | None
    path: str | None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Bytes of the file, or of the files of a folder or pattern; None where there is none."""
        if self.path is None or "://" in self.path:
            return None
        found = glob.glob(self.path) if "*" in self.path else [self.path]
        sizes = [
            folder_size(path)[1] if path.is_dir() else path.stat().st_size
            for path in map(Path, found)
            if path.exists()
        ]
        return sum(sizes) if sizes else None

    def to_json(self) -> dict[str, Any]:
        """Gives the entry as plain values; `bytes` is null where the file is missing."""
        return {"name": self.name, "kind": self.kind, "path": self.path, "bytes": self.size}


def read_catalog(config_dir: str | Path | None = None) -> list[DatasetEntry]:
    """Reads every YAML file of the group `dataset`, in order of name.

    Args:
        config_dir: A folder with configuration groups of the user's own, searched first.

    Raises:
        ConfigError: There is no such folder, or a file is not a YAML mapping.
    """
    return [_read_entry(file) for file in group_choices("dataset", config_dir).values()]


def find_dataset(path_or_name: str, config_dir: str | Path | None = None) -> DatasetEntry:
    """Gives the entry of a name, or one for a path that is not a name.

    Args:
        path_or_name: What the user types.
        config_dir: See `read_catalog`.

    Raises:
        DataError: It is neither a configured name nor a file; the nearest names are given.
        ConfigError: The configuration of that name gives no path.
    """
    entries = {entry.name: entry for entry in read_catalog(config_dir)}
    if path_or_name in entries:
        entry = entries[path_or_name]
        if entry.path is None:
            raise ConfigError(f"dataset {entry.name!r} has no file of its own: give a path")
        return entry
    is_path = "/" in path_or_name or "." in path_or_name or Path(path_or_name).exists()
    if not is_path:
        raise DataError(
            f"{path_or_name!r} is neither a file nor a configured dataset. "
            f"{nearest_choice('dataset', path_or_name, config_dir)}"
        )
    return DatasetEntry(path_or_name, None, path_or_name)


def folder_size(folder: Path) -> tuple[int, int]:
    """Gives the number of files below a folder and their bytes; zeros where it does not exist."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return len(sizes), sum(sizes)


def empty_folder(folder: Path) -> None:
    """Removes everything in a folder, and keeps the folder.

    Raises:
        StorageError: Something cannot be removed.
    """
    if not folder.is_dir():
        return
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise StorageError(f"cannot empty {folder}: {error}") from error


def _read_entry(file: Path) -> DatasetEntry:
    values = settings_today({"dataset": read_choice(file)}, is_known)[0]["dataset"]
    path = values.get("path")
    try:
        path = None if path in (None, "???") else local_path(expanded(str(path)))
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    if path is not None:
        path = found_file(path, values.get("kind")) or path
    options = dict(values.get("options") or {})
    if values.get("split") is not None:
        options["split"] = values["split"]
    return DatasetEntry(file.stem, values.get("kind"), path, options)

"""Reads the files of a run folder, with one error for each kind of trouble.

What is missing is None, what is damaged a `DataError`, what may not be read a `StorageError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml

from slm_vllm.errors import DataError, SlmVllmError, StorageError, reason_of
from slm_vllm.monitoring.usage import Memory
from slm_vllm.rundir import names
from slm_vllm.rundir.contents import Manifest, Results, State, SweepState

if TYPE_CHECKING:
    from slm_vllm.config.schema import Config

_Content = TypeVar("_Content")


def read_state(folder: Path) -> State | None:
    """What the run says it is doing."""
    return cast("State | None", read_object(folder / names.STATE))


def read_results(folder: Path) -> Results | None:
    """Its figures, once it has finished."""
    return cast("Results | None", read_object(folder / names.RESULTS))


def read_sweep(folder: Path) -> SweepState | None:
    """What the folder of a sweep says of it."""
    return cast("SweepState | None", read_object(folder / names.SWEEP))


def read_manifest(folder: Path) -> Manifest | None:
    """Versions and hashes."""
    return cast("Manifest | None", read_object(folder / names.MANIFEST))


def read_memory(folder: Path) -> Memory | None:
    """Memory over time."""
    return cast("Memory | None", read_object(folder / names.MEMORY))


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Its configuration as it was written, by whichever version."""
    path = folder / names.CONFIG
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return _read(path, lambda data: yaml.load(data, Loader=loader))


def read_config(folder: Path) -> Config | None:
    """Its configuration as this version understands it.

    Raises:
        DataError: It is damaged, or another version's with settings that are not known here.
    """
    from slm_vllm.config.schema import Config

    settings = read_settings(folder)
    if settings is None:
        return None
    try:
        return Config.model_validate(settings)
    except ValueError as error:
        raise damaged(folder / names.CONFIG, " ".join(str(error).split())) from None


def if_readable(read: Callable[[Path], _Content | None], folder: Path) -> _Content | None:
    """What one of the readers finds; None also where it cannot be read.

    For those who go on without it, because the run itself will say what is wrong.
    """
    try:
        return read(folder)
    except SlmVllmError:
        return None


def damaged(path: Path, reason: str) -> DataError:
    """The error for a file with the wrong content."""
    whose, what, journal = "run", "answers", names.JOURNAL
    if path.name in (names.JUDGEMENT, names.GRADES):
        whose, what, journal = "judge", "replies", names.JUDGEMENTS
    return DataError(
        f"{path} is damaged ({reason}). Giving the {whose}'s command again rewrites it: the "
        f"{what} are in {journal} and not affected"
    )


def unreadable(path: Path, error: OSError) -> StorageError:
    """The error for a file that may not be read."""
    return StorageError(
        f"{path}: cannot be read ({reason_of(error)}). Look at its owner and permissions (ls -ld)"
    )


def read_object(path: Path) -> dict[str, Any] | None:
    """A file that holds a JSON object."""
    return _read(path, json.loads)


def _read(path: Path, parse: Callable[[bytes], Any]) -> dict[str, Any] | None:
    try:
        content = parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged(path, " ".join(str(error).split())) from None
    if not isinstance(content, dict):
        raise damaged(path, "it holds no mapping of names to values")
    return content

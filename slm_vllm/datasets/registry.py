"""Chooses the class that reads a dataset: by its kind, or by what the file looks like."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_vllm.datasets.base import BaseDataset
from slm_vllm.datasets.beir import is_beir
from slm_vllm.datasets.places import found_file, missing_dataset
from slm_vllm.datasets.reading.records import Form, find_form
from slm_vllm.datasets.rows.fields import FieldNames
from slm_vllm.datasets.schema import CANONICAL_SCHEMA
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.nearest import nearest
from slm_vllm.plugins import Registry
from slm_vllm.types import RejectedRow

if TYPE_CHECKING:
    from slm_vllm.config.schema import DatasetConfig

ENTRY_POINTS = "slm_vllm.datasets"

_DATASETS = Registry(
    key="dataset.kind",
    noun="kind of dataset",
    group=ENTRY_POINTS,
    base=BaseDataset,  # type: ignore[type-abstract]
    # A new dataset of this package is one line here.
    built_in={
        "nq": "slm_vllm.datasets.nq:NqDataset",
        "simple_qa": "slm_vllm.datasets.simple_qa:SimpleQaDataset",
        "qa_pairs": "slm_vllm.datasets.qa_pairs:QaPairsDataset",
        "beir": "slm_vllm.datasets.beir:BeirDataset",
        "hf": "slm_vllm.datasets.hf:HfDataset",
    },
    attributes=("kind",),
    arguments=("path", "on_reject="),
)

dataset_kinds = _DATASETS.names
dataset_class = _DATASETS.find

DEFAULT_CACHE = ".cache"

DEMO = "demo"
"""As a path: the dataset shipped with the package."""

_KNOWN_LAYOUTS = (
    "nq (question, answer, document_text; or question, answer, context, long_context), "
    "simple_qa (problem, answer, documents), qa_pairs (question, answer or answers), "
    f"Parquet ({', '.join(CANONICAL_SCHEMA)})"
)


def open_dataset(
    kind: str | None,
    path: str | Path,
    *,
    on_reject: Callable[[RejectedRow], None] | None = None,
    options: Mapping[str, Any] | None = None,
    cache_dir: str | Path = DEFAULT_CACHE,
) -> BaseDataset:
    """Makes the dataset of a file; reading begins with `scan`.

    Args:
        kind: A kind of `dataset_kinds`, or None to find it from the file.
        path: The file, a folder that holds one dataset, an `s3://` URL, or "demo" for the shipped
            one.
        on_reject: Called for each row that is left out.
        options: Further arguments of the class, such as `split` or `columns`; nulls are left out.
        cache_dir: Where the copy of a URL is kept.

    Raises:
        ConfigError: Unknown kind or option.
        DataError: No kind was given and the file is missing or of no known layout.
        StorageError: A URL cannot be downloaded.
    """
    path = fetched_path(path, cache_dir, kind=kind)
    given = {key: value for key, value in (options or {}).items() if value is not None}
    found = dataset_class(kind or sniff_kind(path, given.get("columns")))
    _check_options(found, given)
    return found(path, on_reject=on_reject, **given)


def check_dataset(section: DatasetConfig) -> None:
    """Checks what a configuration says of its dataset, as far as that needs no file.

    Raises:
        ConfigError: Unknown kind or option.
    """
    if section.kind is not None:
        given = {**section.options, "split": section.split}
        names = [name for name, value in given.items() if value is not None]
        _check_options(dataset_class(section.kind), names)


def open_configured(
    section: DatasetConfig,
    file: str | None = None,
    *,
    on_reject: Callable[[RejectedRow], None] | None = None,
) -> BaseDataset:
    """Opens the dataset of a configuration; see `open_dataset`.

    Args:
        section: The section `dataset`.
        file: What is read in place of its path: the local copy of a URL.
        on_reject: Called for each row that is left out.
    """
    options = {**section.options, "split": section.split}
    return open_dataset(section.kind, file or section.path, on_reject=on_reject, options=options)


def local_path(path: str | Path) -> str:
    """Gives the path as text, with "demo" replaced by where the shipped dataset lies."""
    if str(path) == DEMO and not Path(path).exists():
        return str(demo_path())
    return str(path)


def fetched_path(
    path: str | Path,
    cache_dir: str | Path = DEFAULT_CACHE,
    notices: list[str] | None = None,
    *,
    kind: str | None = None,
) -> str:
    """The file to read: `local_path`, found as `found_file` does, or fetched from a bucket.

    `notices` gets a line where the file is not the one that was named, where the object has
    changed or nobody could be asked.

    Raises:
        DataError: A file of nq or simple_qa that is nowhere it is looked for.
        StorageError: It cannot be downloaded.
        ConfigError: The settings of the bucket cannot be used.
    """
    if not str(path).startswith("s3://"):
        named = local_path(path)
        found = found_file(named, kind)
        if found is None:
            raise missing_dataset(named)
        if notices is not None and found != named:
            notices.append(f"{named}: {found} is read")
        return found
    from slm_vllm.storage.dataset_cache import cached_dataset

    return str(cached_dataset(str(path), Path(cache_dir), notices=notices))


def sniff_kind(path: str, columns: Mapping[str, Any] | None = None) -> str:
    """Finds the kind of a file from its first bytes, and its name where those leave a choice.

    Args:
        path: The file.
        columns: The user's mapping; with one, only kinds that take it are found.

    Raises:
        DataError: The file cannot be read, or no kind has this layout.
    """
    if path.startswith("hf://"):
        return "hf"
    if is_beir(path):
        return "beir"
    if columns or "*" in path:
        return "qa_pairs"
    names = FieldNames()
    form = find_form(path, names.is_row)
    kind = _kind_of(form, Path(path).name.lower(), names)
    if kind is None:
        names.require(path, form.columns, f"{form}")
        raise DataError(f"{path}: no known layout. Found: {form}. Known: {_KNOWN_LAYOUTS}.")
    return kind


def demo_path() -> Path:
    """Gives the path of the dataset shipped with the package."""
    return Path(str(files("slm_vllm.datasets").joinpath("data").joinpath("demo.jsonl")))


def _check_options(found: type[BaseDataset], given: Iterable[str]) -> None:
    accepted = [
        name for name in inspect.signature(found).parameters if name not in ("path", "on_reject")
    ]
    for name in given:
        if name not in accepted:
            hint = nearest(name, accepted) if accepted else "It has none"
            raise ConfigError(f"dataset kind {found.kind!r} has no option '{name}'. {hint}")


def _kind_of(form: Form, name: str, names: FieldNames) -> str | None:
    columns = set(form.columns)
    if {"document_text", "question"} <= columns or {"long_context", "question"} <= columns:
        return "nq"
    named_simple_qa = "simple_qa" in name or "simpleqa" in name
    asks = "question" in columns and bool(columns & {"answer", "answers"})
    if {"problem", "answer"} <= columns or (asks and named_simple_qa):
        return "simple_qa"
    if asks and form.name == "json" and {"id", "documents", "metadata"} <= columns:
        return "simple_qa"
    if names.is_row(dict.fromkeys(form.columns)):
        return "qa_pairs"
    if not columns:
        # The first rows are damaged; the name is then the only sign, and the scan says why.
        return "nq" if form.name == "jsonl" and name.startswith("nq") else "qa_pairs"
    return None

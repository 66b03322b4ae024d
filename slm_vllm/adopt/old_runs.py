"""Reads runs of the earlier scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slm_vllm.adopt.checkout import OldCheckout
from slm_vllm.config.compose import group_choices, read_choice
from slm_vllm.config.legacy import CONTEXT_OF
from slm_vllm.errors import ConfigError, DataError, StorageError, reason_of
from slm_vllm.json_text import as_mapping, as_number

UNKNOWN = "unknown"
PREDICTION = "predicted_answer"


@dataclass(frozen=True)
class OldRun:
    """A run as its folder tells it; what it does not tell is "unknown" or None.

    Attributes:
        folder: Where it lies.
        model: Name of the model.
        dataset: Name of the dataset.
        mode: Name of the mode.
        context: What the model saw: none, oracle or retriever.
        rows: The entries of its `predictions.json`.
        results: Its `results.json`, or the statistics of its predictions.
        memory: Its `memory_usage.json`.
    """

    folder: Path
    model: str
    dataset: str
    mode: str
    context: str
    rows: list[dict[str, Any]]
    results: Mapping[str, Any]
    memory: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def token_recall(self) -> float | None:
        """What it said of itself."""
        return as_number(self.results.get("token_recall"))

    @property
    def duration(self) -> float | None:
        """Seconds that it took in all."""
        return as_number(self.results.get("duration_seconds"))

    def peak(self, *words: str) -> float | None:
        """The peak in MiB under a key of the memory file that has one of the words and a unit."""
        peaks = [
            value * factor
            for key, value in _numbers(self.memory)
            if ("peak" in key or "max" in key) and any(word in key for word in words)
            for unit, factor in _UNITS.items()
            if key.endswith(unit)
        ]
        return max(peaks, default=None)


_UNITS = {"mb": 1.0, "mib": 1.0, "gb": 1024.0, "gib": 1024.0, "bytes": 1 / (1 << 20)}


def read_old_run(checkout: OldCheckout, folder: Path) -> OldRun:
    """Reads the folder of a finished run.

    Raises:
        DataError: Its predictions are damaged, or there are none.
        StorageError: They cannot be read.
    """
    content = _json(folder / "predictions.json")
    listed = content.get("predictions") if isinstance(content, dict) else content
    rows = [row for row in listed or [] if isinstance(row, dict)]
    if not rows:
        raise DataError(f"{folder / 'predictions.json'} holds no predictions")
    if not any(PREDICTION in row for row in rows):
        raise DataError(
            f"{folder / 'predictions.json'}: no row has {PREDICTION!r}, so nothing can be scored. "
            f"Found: {', '.join(rows[0])}"
        )
    statistics = content.get("statistics") if isinstance(content, dict) else None
    results = as_mapping(_optional(folder / "results.json")) or as_mapping(statistics)
    settings = _settings(folder)
    model, dataset, mode = _parts_of_name(checkout, folder.name)
    sources = [results, rows[0]]
    recorded_mode = (
        _first(sources, ("experiment_mode", "mode"), settings, "experiment_mode") or mode
    )
    context_type = _first(sources, ("context_type",), {}, "")
    context = CONTEXT_OF.get(context_type or "") or CONTEXT_OF.get(recorded_mode or "") or UNKNOWN
    return OldRun(
        folder=folder,
        model=_model_name(
            checkout, _first(sources, ("model_name", "model"), settings, "model") or model
        ),
        dataset=_first(sources, ("dataset_name", "dataset"), settings, "dataset")
        or dataset
        or UNKNOWN,
        mode=recorded_mode or (context if context != UNKNOWN else UNKNOWN),
        context=context,
        rows=rows,
        results=results,
        memory=as_mapping(_optional(folder / "memory_usage.json")),
    )


def _first(
    sources: Iterable[Mapping[str, Any]],
    keys: tuple[str, ...],
    settings: Mapping[str, Any],
    group: str,
) -> str | None:
    for content in sources:
        for key in keys:
            value = content.get(key)
            if isinstance(value, Mapping):
                value = value.get("name")
            if isinstance(value, str) and value:
                return value
    name = as_mapping(settings.get(group)).get("name")
    return name if isinstance(name, str) else None


def _parts_of_name(checkout: OldCheckout, name: str) -> tuple[str | None, str | None, str | None]:
    """Model, dataset and mode of a folder that is called `<model>_<dataset>_<mode>`."""
    for mode in _known(checkout, "experiment_mode"):
        if name.endswith(f"_{mode}"):
            rest = name.removesuffix(f"_{mode}")
            for dataset in _known(checkout, "dataset"):
                if rest.endswith(f"_{dataset}"):
                    return rest.removesuffix(f"_{dataset}"), dataset, mode
            return None, None, mode
    return None, None, None


def _known(checkout: OldCheckout, group: str) -> list[str]:
    """Names of a group, the longest first: local_nq ends in nq."""
    return sorted({*checkout.choices(group), *group_choices(group)}, key=len, reverse=True)


def _model_name(checkout: OldCheckout, recorded: str | None) -> str:
    """The name of a model's configuration where a repository was written down."""
    if recorded is None or "/" not in recorded:
        return recorded or UNKNOWN
    for name, path in {**group_choices("model"), **checkout.choices("model")}.items():
        try:
            content = read_choice(path)
        except ConfigError:
            continue
        if recorded in (content.get("path"), content.get("model_name"), content.get("model_id")):
            return name
    return recorded.rsplit("/", 1)[-1].lower()


def _settings(folder: Path) -> dict[str, Any]:
    for name in (".hydra/config.yaml", "config.yaml"):
        try:
            content = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(content, dict):
            return content
    return {}


def _optional(path: Path) -> Any:
    try:
        return _json(path)
    except (DataError, StorageError):
        return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({reason_of(error)})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error})") from None


def _numbers(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for key, value in content.items():
        name = f"{prefix}{key}".lower()
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}.")
        elif (number := as_number(value)) is not None:
            yield name, number

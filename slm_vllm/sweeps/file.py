"""Reads a sweep from options, a YAML file, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from slm_vllm.config.compose import read_keys
from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest
from slm_vllm.paths import expanded, folder_name
from slm_vllm.sweeps.plan import SweepGrid

_AXES = ("models", "datasets", "modes", "retrievers", "top_k")
_LISTS = (*_AXES, "overrides")
_KEYS = tuple(field.name for field in fields(SweepGrid))


def sweep_grid(words: Mapping[str, Any]) -> SweepGrid:
    """Makes the grid of a command line.

    Args:
        words: Values of the options by the names of `SweepGrid`, None for those not given; the
            axes as comma-separated text; `file` names a YAML file, over which options win.

    Raises:
        ConfigError: The file cannot be used, or an axis is missing.
    """
    file = words.get("file")
    content = _read(Path(file)) if file else {}
    for key, value in words.items():
        if key == "file" or value is None or value == ():
            continue
        if key == "output_dir" and "output_dir" in content and value == "outputs":
            continue
        content[key] = _split(value) if key in _AXES else value
    missing = [axis for axis in ("models", "datasets", "modes") if not content.get(axis)]
    if missing:
        options = ", ".join(f"--{axis}" for axis in missing)
        raise ConfigError(f"a sweep needs {options} (or these keys in the file of --file)")
    for axis in _AXES:
        values = content.get(axis, ())
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ConfigError(f"{axis}: {twice[0]} is named twice")
    _check_places(content)
    lists = {key: tuple(content[key]) for key in _LISTS if content.get(key)}
    if "top_k" in lists:
        lists["top_k"] = tuple(_passages(number) for number in lists["top_k"])
    return SweepGrid(**{**content, **lists})


def _passages(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word)):
        raise ConfigError(f"top_k: must be numbers above 0, found {word!r}")
    return int(word)


def _check_places(content: dict[str, Any]) -> None:
    for key, ready in (("name", folder_name), ("output_dir", expanded)):
        if key in content:
            try:
                content[key] = ready(content[key])
            except ValueError as error:
                raise ConfigError(f"{key} of the sweep: {error}") from None


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _read(path: Path) -> dict[str, Any]:
    content = read_keys(path, f"--file {path}:", "models: [demo]")
    for key, value in content.items():
        if key not in _KEYS:
            raise ConfigError(
                f"--file {path}: there is no key '{key}'. {nearest(str(key), list(_KEYS))}"
            )
        if key in _LISTS:
            content[key] = _listed(path, key, value)
        elif key == "samples" and not (isinstance(value, int) and value > 0):
            raise ConfigError(f"--file {path}: samples must be a number above 0, found {value!r}")
        elif key in ("name", "output_dir", "config_dir") and not isinstance(value, str):
            raise ConfigError(f"--file {path}: {key} must be text, found {value!r}")
    return content


def _listed(path: Path, key: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if key == "top_k":
        values = [str(one) for one in values]
    if not all(isinstance(one, str) for one in values):
        raise ConfigError(f"--file {path}: {key} must be a list of words, found {value!r}")
    return values

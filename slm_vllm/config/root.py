"""The root of a configuration: a user's own `config.yaml`, completed from the shipped one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from slm_vllm.config.overrides import GROUPS

ROOT = "config.yaml"

_HYDRA = "hydra"


@contextmanager
def completed_root(own: Path | None, shipped: Path) -> Iterator[list[Path]]:
    """Folders to search before the shipped one, so that every group has a choice.

    A `config.yaml` whose defaults leave groups out gets those of the shipped one, below all that
    it says itself. What it says to Hydra (job logging, run folders) is not used.

    Args:
        own: The user's folder.
        shipped: The folder of this package.

    Yields:
        The folders, the first to be searched first.
    """
    if own is None:
        yield []
        return
    content = _content(own / ROOT)
    missing = [] if content is None else _missing_groups(content)
    if content is None or not missing:
        yield [own]
        return
    ours = _content(shipped / ROOT) or {}
    with TemporaryDirectory(prefix="slm-vllm-") as folder:
        text = yaml.safe_dump(_complete(content, ours, missing), sort_keys=False)
        (Path(folder) / ROOT).write_text(text, encoding="utf-8")
        yield [Path(folder), own]


def _missing_groups(content: Mapping[str, Any]) -> list[str]:
    """The groups for which a root names no choice."""
    named = {_group(entry) for entry in content.get("defaults") or []}
    return [group for group in GROUPS if group not in named]


def _complete(
    content: Mapping[str, Any], ours: Mapping[str, Any], missing: list[str]
) -> dict[str, Any]:
    filled = [entry for entry in ours["defaults"] if _group(entry) in missing]
    theirs = [entry for entry in content.get("defaults") or [] if _HYDRA not in _group(entry)]
    if not any(entry == "_self_" for entry in theirs):
        theirs.append("_self_")
    settings = {key: value for key, value in content.items() if key != _HYDRA}
    return {**_merged(ours, settings), "defaults": [*filled, *theirs]}


def _group(entry: Any) -> str:
    """The group of an entry of a defaults list; the entry itself where it chooses no file."""
    if not isinstance(entry, dict):
        return str(entry)
    key = str(next(iter(entry), ""))
    return key.split()[-1].split("@")[0].strip("/") if key else ""


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(before, value)
        else:
            merged[key] = value
    return merged


def _content(path: Path) -> dict[str, Any] | None:
    """The keys of a file; None where Hydra will say what is wrong with it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None

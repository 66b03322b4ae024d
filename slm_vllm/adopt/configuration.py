"""Converts the configuration of an earlier checkout to the current keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from slm_vllm.adopt.checkout import OldCheckout
from slm_vllm.config.compose import is_known, read_keys, read_sections
from slm_vllm.config.legacy import settings_today
from slm_vllm.config.location import configs_dir
from slm_vllm.config.overrides import GROUPS
from slm_vllm.errors import ConfigError, StorageError, reason_of

_OWN_FOLDER = "/${experiment.name}"
_NAMES = {"nq": ("nq", "local_nq", "rag_nq"), "simple_qa": ("simple_qa", "local_simple_qa")}
_EVERYWHERE = "# @package _global_\n"


@dataclass
class NewConfiguration:
    """Files to be written.

    Attributes:
        files: Their text by their path in the folder of the configuration.
        notes: What became of settings that are not as they were.
    """

    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Writes the files.

        Raises:
            StorageError: They cannot be written.
        """
        try:
            for name, text in self.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written ({reason_of(error)})") from None


def new_configuration(checkout: OldCheckout) -> NewConfiguration:
    """Translates every file of a checkout's `configs`; datasets get the places of their files."""
    made = NewConfiguration()
    root = _root(checkout, made)
    for group in GROUPS:
        for name, file in checkout.choices(group).items():
            _add_choice(checkout, made, group, name, file)
    for kind, names in _NAMES.items():
        for name in names:
            if kind in checkout.data and f"dataset/{name}.yaml" not in made.files:
                section = {"name": name, "kind": kind, "path": checkout.data[kind]}
                made.files[f"dataset/{name}.yaml"] = _text(section)
    made.files["config.yaml"] = _text(root)
    return made


def _root(checkout: OldCheckout, made: NewConfiguration) -> dict[str, Any]:
    shipped = _read_root(configs_dir() / "config.yaml")
    chosen = {
        k: v for entry in shipped["defaults"] if isinstance(entry, dict) for k, v in entry.items()
    }
    theirs: dict[str, Any] = {}
    if checkout.root_file.is_file():
        theirs = _read_root(checkout.root_file)
    for entry in theirs.pop("defaults", None) or []:
        if isinstance(entry, dict):
            chosen |= {k: v for k, v in entry.items() if k in GROUPS}
    # Files of models may say how many requests run at a time: they come after the hardware's.
    order = ["hardware", *(group for group in GROUPS if group != "hardware")]
    defaults = [*({group: chosen[group]} for group in order), "_self_"]
    theirs.pop("hydra", None)
    today = _translated(theirs, "configs/config.yaml", made)
    experiment = {"name": shipped["experiment"]["name"], **(today.get("experiment") or {})}
    if str(experiment.get("output_dir", "")).endswith(_OWN_FOLDER):
        experiment["output_dir"] = experiment["output_dir"].removesuffix(_OWN_FOLDER)
    return {"defaults": defaults, **today, "experiment": experiment}


def _read_root(file: Path) -> dict[str, Any]:
    return read_keys(file, str(file), "defaults: [model: demo]")


def _add_choice(
    checkout: OldCheckout, made: NewConfiguration, group: str, name: str, file: Path
) -> None:
    try:
        content = read_sections(file)
    except ConfigError as error:
        made.notes.append(f"{error}; it is left out")
        return
    above = {}
    for part in (content, content.get(group)):
        if isinstance(part, dict) and "defaults" in part:
            above["defaults"] = part.pop("defaults")
    today = _translated(content, f"configs/{group}/{name}.yaml", made)
    section = today.setdefault(group, {})
    section.setdefault("name", name)
    if group == "dataset" and (found := checkout.dataset_file(name)) is not None:
        section["path"] = found
    if len(today) == 1:
        made.files[f"{group}/{name}.yaml"] = _text({**above, **section})
    else:
        made.files[f"{group}/{name}.yaml"] = _EVERYWHERE + _text({**above, **today})


def _translated(content: Mapping[str, Any], file: str, made: NewConfiguration) -> dict[str, Any]:
    """Settings that are known today; what the others were is said, their values are not."""
    today, notes = settings_today(content, is_known)
    made.notes += [f"{file}: {line}" for line in notes]
    kept: dict[str, Any] = {}
    for section, values in today.items():
        if not is_known(section):
            made.notes.append(f"{file}: {section} is not known and left out")
        elif isinstance(values, Mapping):
            kept[section] = {k: v for k, v in values.items() if is_known(f"{section}.{k}")}
            left = [f"{section}.{k}" for k in values if k not in kept[section]]
            made.notes += [f"{file}: {key} is not known and left out" for key in left]
        else:
            kept[section] = values
    return kept


def _text(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)

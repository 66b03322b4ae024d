"""Reads a checkout of the earlier scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slm_vllm.config.compose import is_known, read_choice
from slm_vllm.config.legacy import settings_today
from slm_vllm.datasets.known_files import KINDS, WHOLE_DATASET
from slm_vllm.datasets.places import found_file
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.rundir import names

_VARIABLE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=", re.MULTILINE)


@dataclass(frozen=True)
class OldCheckout:
    """A folder in which the earlier scripts ran.

    Attributes:
        path: The folder, absolute.
    """

    path: Path

    @classmethod
    def open(cls, path: Path) -> OldCheckout:
        """Looks whether there is anything to take over.

        Raises:
            ConfigError: There is not.
        """
        found = cls(path.resolve())
        if not path.is_dir():
            raise ConfigError(f"{path}: there is no such folder")
        if not (found.root_file.is_file() or found.run_folders or found.data):
            raise ConfigError(
                f"{found.path} holds nothing to take over: no configs/config.yaml, no runs in "
                "outputs/, no dataset in data/. Name the folder in which the scripts were started"
            )
        return found

    @property
    def root_file(self) -> Path:
        """Its `config.yaml`."""
        return self.path / "configs" / "config.yaml"

    @property
    def clearml_conf(self) -> Path | None:
        """Its ClearML configuration."""
        path = self.path / "clearml.conf"
        return path if path.is_file() else None

    @cached_property
    def run_folders(self) -> list[Path]:
        """Folders of finished runs; runs of this package may lie among them."""
        found = sorted(path.parent for path in self.path.glob("outputs/*/predictions.json"))
        return [folder for folder in found if not (folder / names.CONFIG_HASH).exists()]

    @cached_property
    def data(self) -> dict[str, str]:
        """The best file of each dataset in its `data`, by kind."""
        found = {}
        for kind in KINDS:
            file = found_file(str(self.path / "data" / WHOLE_DATASET[kind][0]), kind)
            if file is not None:
                found[kind] = file
        return found

    @property
    def variables(self) -> list[str]:
        """The names of the variables that its `.env` sets; what they hold is nobody's business."""
        try:
            text = (self.path / ".env").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return _VARIABLE.findall(text)

    def choices(self, group: str) -> dict[str, Path]:
        """The files of a group by name."""
        files = sorted((self.path / "configs" / group).glob("*.yaml"))
        return {file.stem: file for file in files}

    def dataset_file(self, name: str) -> str | None:
        """Where the rows of a dataset of its configuration lie; None where they are not found."""
        file = self.choices("dataset").get(name)
        section: dict[str, Any] = {}
        if file is not None:
            try:
                today, _ = settings_today({"dataset": read_choice(file)}, is_known)
                section = today["dataset"]
            except ConfigError:
                section = {}
        named = section.get("path")
        if isinstance(named, str) and "://" in named:
            return None  # it stays where it is
        if isinstance(named, str):
            try:
                found = found_file(str(self.path / named), section.get("kind"))
            except DataError:
                found = None
            if found is not None and Path(found).is_file():
                return found
        return self.data.get("simple_qa" if "simple" in name else "nq" if "nq" in name else "")

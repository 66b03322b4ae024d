"""Finds the YAML files of `configs/`."""

from __future__ import annotations

import re
from pathlib import Path

from slm_vllm.errors import ConfigError


def configs_dir() -> Path:
    """The folder that holds `config.yaml` and the config groups.

    In a checkout, and so in an editable install, it is the repository's own `configs/`; in an
    installed wheel it is the copy inside the package.

    Raises:
        ConfigError: Neither is there: the installation is damaged.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    # Some other package could leave a `configs` folder beside this one in site-packages.
    if (checkout / "configs").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "configs"
    packaged = package / "_configs"
    if packaged.is_dir():
        return packaged
    raise ConfigError(
        f"The configuration files are missing: neither {checkout / 'configs'} nor {packaged} "
        "exists. Install slm-vllm again."
    )


def own_configs() -> Path | None:
    """`./configs`, where its `config.yaml` is a user's own root of such runs.

    That is one whose defaults choose an `experiment_mode`; other programs compose `configs/` too.
    The folder of a checkout of this project is not a user's own.
    """
    folder = Path("configs")
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        if folder.resolve() == configs_dir().resolve() or Path("slm_vllm/__init__.py").is_file():
            return None
    except (OSError, UnicodeDecodeError):
        return None
    chooses_mode = re.search(r"^\s*-\s*/?experiment_mode\s*:", text, re.MULTILINE)
    return folder.resolve() if chooses_mode else None

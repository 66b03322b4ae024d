"""Where the YAML files of `configs/` lie."""

from __future__ import annotations

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

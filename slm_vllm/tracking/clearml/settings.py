"""Where ClearML is configured, found without importing it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

_PREFIXES = ("CLEARML_", "AWS_")
_KEYS = ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY")
# What the SDK would take for an order to be that very task, or another process of it.
_FOREIGN = ("CLEARML_TASK_ID", "CLEARML_PROC_MASTER_ID", "CLEARML_OFFLINE_MODE")


@dataclass(frozen=True, slots=True)
class ClearMLSettings:
    """What is known of a ClearML server.

    Attributes:
        source: What names the server: a file or "environment"; None when nothing does.
        problem: A setting that cannot be used.
        environment: Variables of the process that talks to the server; they may hold secrets.
    """

    source: str | None
    problem: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def find_clearml(
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
    home: Path | None = None,
) -> ClearMLSettings:
    """Looks at the environment, `.env`, `CLEARML_CONFIG_FILE` and `~/clearml.conf`.

    Args:
        environment: Instead of the process's own.
        folder: Where `.env` is looked for, instead of the working directory.
        home: Instead of the user's.
    """
    variables = dict(os.environ if environment is None else environment)
    from_file = _env_file((folder or Path()) / ".env")
    merged = {**from_file, **variables}
    for name in _FOREIGN:
        merged.pop(name, None)
    merged["CLEARML_SUPPRESS_UPDATE_MESSAGE"] = "1"
    merged.setdefault("AWS_MAX_ATTEMPTS", "2")
    named = merged.get("CLEARML_CONFIG_FILE")
    if named == "None" and not Path(named).is_file():
        # So a clearml-agent says to its tasks that it was configured by the environment alone.
        named = None
        del merged["CLEARML_CONFIG_FILE"]
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            return ClearMLSettings(None, f"CLEARML_CONFIG_FILE={named}: no such file", merged)
        merged["CLEARML_CONFIG_FILE"] = str(path.resolve())
        return ClearMLSettings(str(path), None, merged)
    if all(merged.get(name) for name in _KEYS):
        return ClearMLSettings("environment", None, merged)
    own = (home or Path.home()) / "clearml.conf"
    if own.is_file():
        return ClearMLSettings(str(own), None, merged)
    there = [name for name in (*_KEYS, "CLEARML_API_HOST") if merged.get(name)]
    if there:
        missing = [name for name in _KEYS if not merged.get(name)]
        return ClearMLSettings(None, f"{there[0]} is set, {' and '.join(missing)} not", merged)
    return ClearMLSettings(None, None, merged)


def clearml_installed() -> bool:
    """Whether the SDK can be imported; does not import it."""
    return find_spec("clearml") is not None


def _env_file(path: Path) -> dict[str, str]:
    """The variables of `.env` that concern ClearML and its storage."""
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        read = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError):
        return {}
    return {key: value for key, value in read.items() if value and key.startswith(_PREFIXES)}

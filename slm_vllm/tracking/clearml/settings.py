"""Finds the ClearML configuration without importing the SDK."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from slm_vllm.environment import read_env_file
from slm_vllm.errors import ConfigError, reason_of
from slm_vllm.paths import expanded
from slm_vllm.paths import home as home_folder
from slm_vllm.proxies import ask_loopback_directly

_PREFIXES = ("CLEARML_", "AWS_")
_KEYS = ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY")
_COMMENT = re.compile(r"^\s*(#|//).*", re.MULTILINE)
# Included files may hold the section as well.
_API_SECTION = re.compile(r"""(^|[\s{,])(["']?api["']?\s*[.:={]|include\b)""")
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
    given = dict(os.environ if environment is None else environment)
    variables, unread = _with_env_file(given, (folder or Path()) / ".env")
    named = variables.get("CLEARML_CONFIG_FILE")
    by_environment = all(variables.get(name) for name in _KEYS)
    found = ClearMLSettings(None, None, variables)
    if named:
        found = _named_file_settings(named, variables)
    elif not by_environment and (home := home or home_folder()) is not None:
        own = home / "clearml.conf"
        found = _file_settings(own, variables) if own.is_file() else found
    if found.source is not None or found.problem is not None:
        return found
    if by_environment:
        return ClearMLSettings("environment", None, variables)
    return ClearMLSettings(None, _half_configured(variables, named) or unread, variables)


def _with_env_file(environment: dict[str, str], file: Path) -> tuple[dict[str, str], str | None]:
    """The variables of the process that talks to the server, and why the file cannot be read."""
    problem = None
    try:
        from_file = read_env_file(file)
    except ConfigError as error:
        from_file, problem = {}, str(error)
    ours = {name: value for name, value in from_file.items() if name.startswith(_PREFIXES)}
    merged = {**ours, **environment}
    for name in _FOREIGN:
        merged.pop(name, None)
    named = merged.get("CLEARML_CONFIG_FILE")
    if named == "None" and not Path(named).is_file():
        # So a clearml-agent says to its tasks that it was configured by the environment alone.
        del merged["CLEARML_CONFIG_FILE"]
    merged["CLEARML_SUPPRESS_UPDATE_MESSAGE"] = "1"
    merged.setdefault("AWS_MAX_ATTEMPTS", "2")
    ask_loopback_directly(merged)
    return merged, problem


def _half_configured(variables: Mapping[str, str], named: str | None) -> str | None:
    """What is lacking where something is set, None where nothing is."""
    there = [name for name in (*_KEYS, "CLEARML_API_HOST") if variables.get(name)]
    if there:
        missing = [name for name in _KEYS if not variables.get(name)]
        return f"{there[0]} is set, {' and '.join(missing)} not"
    if named:
        return f"CLEARML_CONFIG_FILE={named}: it has no section 'api', so it names no server"
    return None


def _named_file_settings(named: str, environment: dict[str, str]) -> ClearMLSettings:
    """What the file of `CLEARML_CONFIG_FILE` says; the variable becomes an absolute path."""
    try:
        path = Path(expanded(named))
    except ValueError as error:
        return ClearMLSettings(None, f"CLEARML_CONFIG_FILE={error}", environment)
    if not path.is_file():
        return ClearMLSettings(None, f"CLEARML_CONFIG_FILE={named}: no such file", environment)
    environment["CLEARML_CONFIG_FILE"] = str(path.resolve())
    return _file_settings(path, environment)


def _file_settings(path: Path, environment: dict[str, str]) -> ClearMLSettings:
    """What a configuration file says; neither source nor problem where it names no server."""
    problem = None
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        problem = f"cannot be read ({reason_of(error)})"
    except UnicodeDecodeError:
        problem = "is not text in UTF-8"
    else:
        if text.startswith("\ufeff"):
            problem = "begins with a byte order mark, which ClearML cannot read: save it without"
        elif "\0" in text:
            problem = "is not text"
    if problem is not None:
        # The SDK reads its file as soon as it is imported, also for an offline session.
        usable = {**environment, "CLEARML_CONFIG_FILE": os.devnull}
        return ClearMLSettings(None, f"{path} {problem}", usable)
    if not _API_SECTION.search(_COMMENT.sub("", text)):
        return ClearMLSettings(None, None, environment)
    return ClearMLSettings(str(path), None, environment)


def clearml_installed() -> bool:
    """Whether the SDK can be imported; does not import it."""
    return find_spec("clearml") is not None

"""Working skeletons of plug-ins, with a test, to begin one's own from."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from slm_vllm.errors import ConfigError, StorageError, reason_of
from slm_vllm.plugins import FOLDER, check_file


@dataclass(frozen=True, slots=True)
class Kind:
    """What a skeleton of one kind comes to.

    Attributes:
        use: The words of a command that choose it.
        group: The folder of its YAML file, "" where it needs none.
        prefix: How the names of its files begin.
    """

    use: str
    group: str = ""
    prefix: str = ""


KINDS: Mapping[str, Kind] = {
    "dataset": Kind("--dataset $name", "dataset"),
    "retriever": Kind("--mode retriever --retriever $name", "retriever"),
    "engine": Kind("--engine $name:$Class"),
    "metric": Kind("", prefix="metric_"),
    "tracker": Kind("tracking.tracker=$name:$Class"),
    "mode": Kind("--mode $name", "experiment_mode"),
}


def skeleton(kind: str, name: str) -> dict[Path, str]:
    """The files of a skeleton, relative to the configuration, and their content.

    Args:
        kind: One of `KINDS`.
        name: Of the plug-in; also that of its file.

    Raises:
        ConfigError: No module can have that name.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise ConfigError(
            f"'{name}' is no name of a Python module: letters, digits and '_', no digit in front"
        )
    found = KINDS[kind]
    plugins = Path(FOLDER)
    contents = {
        plugins / f"{found.prefix}{name}.py": "plugin.py.txt",
        plugins / f"test_{found.prefix}{name}.py": "test.py.txt",
    }
    if found.group:
        contents[Path(found.group) / f"{name}.yaml"] = "config.yaml"
    source = files("slm_vllm.skeletons").joinpath(kind)
    return {
        path: _filled(source.joinpath(template).read_text(encoding="utf-8"), name)
        for path, template in contents.items()
    }


def write_skeleton(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes a skeleton; what is there already stays as it is.

    Args:
        kind: One of `KINDS`.
        name: Of the plug-in.
        folder: That of the configuration; made where it is missing.

    Returns:
        What was written, the plug-in first, then its test.

    Raises:
        ConfigError: The name is not available, or one of the files is there.
        StorageError: They cannot be written.
    """
    contents = {folder / path: text for path, text in skeleton(kind, name).items()}
    plugin = next(iter(contents))
    for path in contents:
        if path.exists():
            raise ConfigError(f"{path} is there already. Choose another name, or remove it")
    check_file(plugin)
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{plugin}: cannot be written ({reason_of(error)})") from None
    return list(contents)


def usage(kind: str, name: str) -> str:
    """The words of a command that choose a plug-in; "" where none are needed."""
    return _filled(KINDS[kind].use, name)


def _filled(template: str, name: str) -> str:
    parts = [part for part in name.split("_") if part]
    return Template(template).substitute(
        {
            "name": name,
            "Class": "".join(part[:1].upper() + part[1:] for part in parts) or "Plugin",
            "label": " ".join(parts),
        }
    )

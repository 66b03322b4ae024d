"""Composes the YAML groups of `configs/` into one validated `Config`, as Hydra does.

An override is a word of the command line: `group=choice` (`model=qwen_1.7b`) or `key=value`
(`generation.max_new_tokens=64`). Every mistake ends in a `ConfigError` that names the key, the
value and the nearest valid one, before anything heavy is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError

from slm_vllm.config.legacy import override_today, settings_today
from slm_vllm.config.location import configs_dir, own_configs
from slm_vllm.config.notice import say_new, say_once
from slm_vllm.config.overrides import (
    OPTIONAL_GROUPS,
    Override,
    hydra_word,
    list_words,
    parse_override,
    quoted,
)
from slm_vllm.config.root import completed_root
from slm_vllm.config.schema import Config
from slm_vllm.config.section import Section
from slm_vllm.errors import ConfigError, reason_of
from slm_vllm.nearest import nearest
from slm_vllm.paths import expanded
from slm_vllm.plugins import FOLDER, use_folder

S = TypeVar("S", bound=Section)

_GLOBAL_PACKAGE = re.compile(r"^#\s*@package\s+_global_\s*$", re.MULTILINE)
_WITHOUT_FILE = {"hardware": ("auto",)}  # choices of a group that no file stands for


def _search_path(config_dir: str | Path | None = None) -> list[Path]:
    """The folders that hold configuration groups, the user's own first.

    Without `config_dir` a user's own is `./configs`, see `own_configs`.

    Raises:
        ConfigError: `config_dir` is not a folder.
    """
    if config_dir is None:
        found = own_configs()
        return [configs_dir()] if found is None else [found, configs_dir()]
    try:
        own = Path(expanded(str(config_dir))).resolve()
    except ValueError as error:
        raise ConfigError(f"--config-dir {error}") from None
    if not own.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
    return [own, configs_dir()]


def group_choices(group: str, config_dir: str | Path | None = None) -> dict[str, Path]:
    """The names valid for a group, each with its YAML file; the user's own files win."""
    found: dict[str, Path] = {}
    for folder in _search_path(config_dir):
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def nearest_choice(group: str, value: str, config_dir: str | Path | None = None) -> str:
    """A phrase for a name that is no choice of a group: what there is, or how to reach it."""
    unseen = os.path.join("configs", group, f"{value}.yaml")
    if config_dir is None and os.path.isfile(unseen):
        return f"{unseen} is read with --config-dir configs"
    return nearest(value, [*group_choices(group, config_dir), *_WITHOUT_FILE.get(group, ())])


def read_choice(path: Path) -> dict[str, Any]:
    """What one file of a group says of this group, before interpolation.

    Raises:
        ConfigError: It cannot be read, is not YAML, or holds no keys.
    """
    found = read_sections(path).get(path.parent.name)
    return found if isinstance(found, dict) else {}


def read_sections(path: Path) -> dict[str, Any]:
    """What one file of a group says, by section: of others too where Hydra's header says so.

    Raises:
        ConfigError: As for `read_choice`.
    """
    content = read_keys(path, str(path), f"name: {path.stem}")
    is_global = _GLOBAL_PACKAGE.search(path.read_text(encoding="utf-8"))
    return content if is_global else {path.parent.name: content}


def read_keys(path: Path, called: str, example: str) -> dict[str, Any]:
    """The content of a YAML file that holds keys with values.

    Args:
        path: The file.
        called: What messages call it.
        example: A line that it could hold.

    Raises:
        ConfigError: It cannot be read, is not YAML, or holds no keys.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{called} cannot be read ({reason_of(error)})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{called} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{called} must hold keys with values, such as '{example}'")
    return content


def has_blanks(path: Path) -> bool:
    """Whether a file of a group leaves something (`???`) for the user to say."""
    content = read_choice(path)
    return "???" in (*content.values(), *content.get("options", {}).values())


def compose_config(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Config:
    """Composes and validates the configuration of one run.

    Args:
        overrides: Words of the form `group=choice` or `key=value`; later ones win.
        config_dir: A folder with groups of the user's own, searched before the shipped ones; its
            folder `plugins` is used from now on.

    Raises:
        ConfigError: Anything in it that is not valid, named with the nearest valid choice.
    """
    *own, _ = _search_path(config_dir)
    if own:
        use_folder(own[0] / FOLDER)
    if own and config_dir is None:
        say_once(f"The configuration is yours in {own[0]} (--config-dir names another)")
    words = [override_today(parse_override(word), is_known) for word in overrides]
    parsed = [word for word in words if word is not None]
    for override in parsed:
        _check_override(override, config_dir)
    chosen = {override.key for override in parsed}
    for group in OPTIONAL_GROUPS:
        if group not in chosen and any(key.startswith(f"{group}.") for key in chosen):
            parsed.insert(0, Override(group, "custom"))
    if not any(override.key == "hardware" for override in parsed):
        parsed.insert(0, Override("hardware", "auto"))
    raw = _compose_raw([_with_device(o) for o in parsed], config_dir)
    if own:
        raw, notes = settings_today(raw, is_known, {override.key for override in parsed})
        say_new(f"Settings of an earlier version in {own[0]}", notes)
    _leave_run_folder(raw)
    return validated(Config, raw, "The configuration")


def validated(section: type[S], raw: Mapping[str, Any], called: str) -> S:
    """Makes a section of its keys and values.

    Args:
        section: Its class.
        raw: The keys with their values.
        called: What messages call all of them.

    Raises:
        ConfigError: Lists every problem with its key, the value found and what is valid.
    """
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem, section)}" for problem in error.errors())
        raise ConfigError(f"{called} is not valid:\n{problems}") from None


def _compose_raw(
    overrides: Sequence[Override], config_dir: str | Path | None = None
) -> dict[str, Any]:
    """Runs Hydra's composition and resolves interpolations, without checking types."""
    import yaml
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    words = [
        f"{o.key}={quoted(o.value)}" if o.is_group_choice else hydra_word(o, _kind_of(o.key))
        for o in overrides
    ]
    *own, shipped = _search_path(config_dir)
    try:
        with (
            completed_root(own[0] if own else None, shipped) as first,
            _searched_first(first),
            initialize_config_dir(config_dir=str(shipped), version_base="1.3"),
        ):
            composed = compose(config_name="config", overrides=words)
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"A configuration file is not valid YAML: {error}") from None
    except Exception as error:  # Hydra and OmegaConf let those of Python and the disk through
        reason = _first_lines(error) or type(error).__name__
        if any("${" in word for word in words):
            reason += ". Where ${ is meant as these two characters, write \\${"
        raise ConfigError(f"The configuration cannot be composed: {reason}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def is_known(key: str) -> bool:
    """Whether there is such a key, or a section or group of that name."""
    try:
        _kind_of(key)
    except ConfigError:
        return False
    return True


def _leave_run_folder(raw: dict[str, Any]) -> None:
    """Makes of an `output_dir` that ends in the run's name the folder around it."""
    experiment = raw.get("experiment")
    if not isinstance(experiment, dict):
        return
    folder, name = (Path(str(experiment.get(key) or "")) for key in ("output_dir", "name"))
    # Earlier versions doubled the name; what they left there is still resumed.
    if name.name and folder.name == str(name) and not (folder / name).is_dir():
        raw["experiment"] = {**experiment, "output_dir": str(folder.parent)}


@contextmanager
def _searched_first(folders: Sequence[Path]) -> Iterator[None]:
    """Puts folders in front of Hydra's search path; `hydra.searchpath` puts them behind."""
    plugin = _search_path_plugin()
    plugin.folders = folders
    try:
        yield
    finally:
        plugin.folders = ()


@cache
def _search_path_plugin() -> Any:
    """Registers the plugin, once: Hydra has no way to take one out again."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class OwnFolders(SearchPathPlugin):
        folders: Sequence[Path] = ()

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in self.folders:
                search_path.prepend("own", f"file://{folder}", anchor="main")

    Plugins.instance().register(OwnFolders)
    return OwnFolders


def _with_device(override: Override) -> Override:
    """Turns `hardware=auto` into the profile of the device of this machine."""
    if override.key == "hardware" and override.value == "auto":
        from slm_vllm.monitoring.device import detect_device

        return Override("hardware", detect_device().profile)
    return override


def _check_override(override: Override, config_dir: str | Path | None) -> None:
    if override.is_group_choice:
        choices = group_choices(override.key, config_dir)
        if override.value not in [*choices, *_WITHOUT_FILE.get(override.key, ())]:
            raise ConfigError(
                f"{override.key}={override.value}: there is no such {override.key}. "
                f"{nearest_choice(override.key, override.value, config_dir)}"
            )
        if override.value in choices:
            read_choice(choices[override.value])
        return
    _kind_of(override.key)


def _kind_of(key: str) -> Any:
    """What a dotted key holds, as the schema says; None inside a mapping that is open.

    Raises:
        ConfigError: There is no such key.
    """
    model: type[Section] | None = Config
    walked: list[str] = []
    for part in key.split("."):
        if model is None:
            raise ConfigError(f"{key}: '{'.'.join(walked)}' is a value and has no key '{part}'")
        known = model.known_keys()
        if part not in known:
            if model.may_have_more():
                return None
            where = f" in '{'.'.join(walked)}'" if walked else ""
            raise ConfigError(f"{key}: there is no key '{part}'{where}. {nearest(part, known)}")
        annotation = known[part].annotation
        if get_origin(annotation) is dict:
            return None  # a mapping with keys of the user's own
        model = _section_of(annotation)
        walked.append(part)
    return annotation


def _section_of(annotation: Any) -> type[Section] | None:
    """The section class of a field, through `Section | None`; None for plain values."""
    options = (
        get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    )
    for option in options:
        # Python 3.10 takes tuple[str, ...] for a type, but not as an argument of issubclass.
        if get_origin(option) is None and isinstance(option, type) and issubclass(option, Section):
            return option
    return None


def _describe(problem: Mapping[str, Any], root: type[Section]) -> str:
    """One line for one of pydantic's problems."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section = _section_at(location[:-1], root)
        valid = nearest(location[-1], section.known_keys()) if section else ""
        return f"{key}: there is no such key. {valid}"
    if problem["type"] == "missing":
        return f"{key}: is required and was not given"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "tuple_type" and isinstance(problem["input"], str):
        return f"{key}: is a list; write {list_words(key, problem['input'])}"
    if problem["type"] == "value_error":
        names_its_key = not key or message.startswith(f"{key}.")
        return message if names_its_key else f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}, found {problem['input']!r}"


def _section_at(location: Sequence[str], root: type[Section]) -> type[Section] | None:
    section: type[Section] | None = root
    for part in location:
        if section is None or part not in section.known_keys():
            return None
        section = _section_of(section.known_keys()[part].annotation)
    return section


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])

"""Finds classes by name: this package's, installed packages', plain files'.

The files lie in the folder `plugins` beside the user's configuration. A setting names a class of
one as `module:Class`; a name of that form may be one of an installed package as well. Code is run
from that folder alone: nothing is ever imported from where a dataset, a model or a run lies.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from slm_vllm.errors import ConfigError, SlmVllmError
from slm_vllm.nearest import nearest

log = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER = "plugins"
"""Its name beside a configuration."""
FOLDER_VARIABLE = "SLM_VLLM_PLUGINS"
"""Holds the folder in use, so that the processes which this one starts use it as well."""

_on_path: Path | None = None

_GUIDE = "docs/extending.md says what each has to have"
_NO_PLUGINS = ("conftest", "test_")


class PluginError(ConfigError):
    """Code of a plug-in that raised something; says where, in one line."""


class Registry(Generic[T]):
    """The classes of one kind.

    A package of its own adds one with an entry point whose name is the word users choose it by and
    whose value is a class derived from `base`. It cannot replace one of this package. A plain file
    needs no entry point: its class is chosen as `module:Class`.

    Args:
        key: The setting that names one, such as `retriever.kind`.
        noun: What one is called.
        group: The group of entry points.
        base: What its classes derive from.
        built_in: "module:Class" of those of this package; imported when they are asked for.
        words: What the setting can be beside names of classes.
        one_of: Where given, what its classes derive from beside `base`: one of these.
        attributes: Class attributes that each has to have.
        arguments: Names of the arguments that it is made with; the positional ones first, those
            given by name with a "=" behind. None: that is not checked.
    """

    def __init__(
        self,
        key: str,
        noun: str,
        group: str,
        base: type[T],
        built_in: Mapping[str, str],
        words: Sequence[str] = (),
        one_of: tuple[type, ...] = (),
        attributes: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        self._key, self._noun, self._group, self._base = key, noun, group, base
        self._built_in, self._words = built_in, words
        self._one_of, self._attributes, self._arguments = one_of, attributes, arguments

    def names(self) -> list[str]:
        """All that the setting can be, those of plain files left out."""
        added = set(added_classes(self._group)).difference(self._built_in)
        return [*self._words, *self._built_in, *sorted(added)]

    def check(self, name: str) -> None:
        """Checks a value of the setting.

        Raises:
            ConfigError: See `find`.
        """
        if name not in self._words:
            self.find(name)

    def find(self, name: str) -> type[T]:
        """Imports the class of a name; nothing heavy, where that is left to its use.

        Raises:
            ConfigError: There is none of that name, or another package's or a file's cannot be
                used; the message says what is missing.
        """
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            own: type[T] = getattr(import_module(module), attribute)
            return own
        try:
            found = load_named(self._group, name)
            if found is None:
                raise ConfigError(f"there is no such {self._noun}. {nearest(name, self.names())}")
            problem = self._problem(found)
        except ConfigError as error:
            raise ConfigError(f"{self._key}={name}: {error}") from error
        if problem is not None:
            raise ConfigError(f"{self._key}={name}: {_place(found, name)} {problem}. {_GUIDE}")
        other: type[T] = found
        return other

    def _problem(self, found: Any) -> str | None:
        """What a class lacks of its contract."""
        bases = self._one_of or (self._base,)
        if not (isinstance(found, type) and issubclass(found, bases)):
            return f"is no {' or '.join(base.__name__ for base in bases)}"
        lacking = [
            *sorted(getattr(found, "__abstractmethods__", ())),
            *(name for name in self._attributes if not hasattr(found, name)),
        ]
        if lacking:
            return f"lacks {', '.join(lacking)}"
        if not self._arguments:
            return None
        plain = [None for name in self._arguments if not name.endswith("=")]
        named = {name[:-1]: None for name in self._arguments if name.endswith("=")}
        try:
            inspect.signature(found).bind(*plain, **named)
        except TypeError as error:
            return f"cannot be made with ({', '.join(self._arguments)}): {error}"
        return None


def added_classes(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; the last of a name counts."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load_named(group: str, name: str) -> Any:
    """What `module:Class` or the entry point of a name stands for; None where there is none.

    Raises:
        ConfigError: It cannot be loaded.
    """
    if ":" in name:
        return load(name)
    entry = added_classes(group).get(name)
    if entry is None:
        return None
    try:
        return entry.load()
    except Exception as error:  # whatever the other package raises
        raise ConfigError(f"the entry point {entry.value} cannot be loaded: {error}") from error


def use_folder(folder: Path | None) -> None:
    """Says where the files are, for this process and those that it starts.

    Args:
        folder: Any; where there is none of that name, there are no files.
    """
    if folder is not None and folder.is_dir():
        os.environ[FOLDER_VARIABLE] = str(folder.resolve())
    else:
        os.environ.pop(FOLDER_VARIABLE, None)


def used_folder() -> Path | None:
    """Where the files are, None where there are none."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else None


def load(word: str) -> Any:
    """What a word of the form `module:Name` stands for, in the folder or in an installed package.

    Raises:
        ConfigError: There is none, or its module cannot be imported.
    """
    module_name, _, attribute = word.partition(":")
    module = load_module(module_name)
    if attribute not in vars(module):
        own = [name for name, one in vars(module).items() if _is_of(one, module_name)]
        hint = nearest(attribute, own) if own else "It defines none"
        raise ConfigError(f"{module.__file__} has no '{attribute}'. {hint}")
    return vars(module)[attribute]


def load_module(name: str) -> ModuleType:
    """Imports a module of the folder, or of an installed package.

    Raises:
        ConfigError: There is none, or it cannot be imported.
    """
    folder = _ready_folder()
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"'{name}' is no name of a module")
    top = name.split(".")[0]
    where = f"in {folder}" if folder else "beside the configuration (plugins/)"
    absent = ConfigError(f"there is no module '{name}' {where} or among the installed packages")
    if top not in sys.modules and _lies_in_working_folder(top, folder):
        raise absent
    try:
        return import_module(name)
    except SlmVllmError as error:
        raise ConfigError(str(error)) from error
    except (Exception, SystemExit) as error:  # whatever stands in the file
        if isinstance(error, ModuleNotFoundError) and error.name in (name, top):
            raise absent from error
        raise ConfigError(fault(error) or f"the module '{name}': {_described(error)}") from error


def module_names(pattern: str) -> list[str]:
    """The modules of the folder whose files match, sorted; `load_module` takes each.

    Raises:
        ConfigError: The folder cannot be used.
    """
    folder = _ready_folder()
    return [] if folder is None else sorted(path.stem for path in folder.glob(pattern))


def loaded_modules() -> list[ModuleType]:
    """The modules of the folder that are imported."""
    return [] if _on_path is None else _modules_in(_on_path)


def fault(error: BaseException) -> str | None:
    """Where code of the folder raised an error, and what; None where none of it was at work."""
    folder = used_folder()
    if folder is None:
        return None
    if isinstance(error, SyntaxError) and error.filename and folder in Path(error.filename).parents:
        return f"{error.filename}, line {error.lineno}: {_described(error)}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if folder in Path(frame.filename).parents
    ]
    if not frames:
        return None
    last = frames[-1]
    inside = "" if last.name == "<module>" else f", in {last.name}"
    return f"{last.filename}, line {last.lineno}{inside}: {_described(error)}"


def as_user_error(error: Exception) -> SlmVllmError:
    """An error as its user is told it; of one that a plug-in raised, the log gets the whole.

    Raises:
        Exception: That very error: it is a defect of the program.
    """
    if isinstance(error, SlmVllmError):
        return error
    message = fault(error)
    if message is None:
        raise error
    log.error("a plug-in failed", exc_info=error)
    problem = PluginError(message)
    problem.__cause__ = error
    return problem


def _ready_folder() -> Path | None:
    """Puts the folder in front of the import path, and takes an earlier one out.

    Raises:
        ConfigError: One of its files would hide a module of Python or of an installed package.
    """
    global _on_path
    folder = used_folder()
    if folder == _on_path:
        return folder
    if _on_path is not None:
        sys.path[:] = [entry for entry in sys.path if entry != str(_on_path)]
        for module in _modules_in(_on_path):
            sys.modules.pop(module.__name__, None)
    _on_path = None
    if folder is not None:
        _check_names(folder)
        sys.path.insert(0, str(folder))
        invalidate_caches()  # the files may be younger than what Python remembers of the folder
    _on_path = folder
    return folder


def _modules_in(folder: Path) -> list[ModuleType]:
    return [
        module
        for module in list(sys.modules.values())
        if folder in Path(getattr(module, "__file__", None) or "/").parents
    ]


def _lies_in_working_folder(name: str, folder: Path | None) -> bool:
    """Whether Python would import what merely lies where a command was started.

    `python -m`, of which the processes of a sweep are, puts that place in front of all others.
    """
    spec = find_spec(name)
    places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin or ""])]
    homes = {Path(place).resolve().parent for place in places if place}
    return folder not in homes and Path.cwd() in homes


def _check_names(folder: Path) -> None:
    packages = (path.parent for path in folder.glob("*/__init__.py"))
    for path in sorted([*folder.glob("*.py"), *packages]):
        if not path.stem.startswith(_NO_PLUGINS):
            check_file(path)


def check_file(path: Path) -> None:
    """Checks that a file of the folder can have its name.

    Raises:
        ConfigError: It would hide a module of Python or of an installed package.
    """
    own = ("", os.getcwd(), str(path.parent.resolve()))
    spec = PathFinder.find_spec(path.stem, [entry for entry in sys.path if entry not in own])
    origin = spec.origin if spec is not None else None
    if path.stem in sys.stdlib_module_names or origin is not None:
        raise ConfigError(
            f"{path}: there is a module '{path.stem}' already ({origin or 'of Python'}), which "
            "this file would hide. Give the file another name"
        )


def _is_of(found: Any, module: str) -> bool:
    return isinstance(found, type) and found.__module__ == module


def _place(found: Any, name: str) -> str:
    """The file and the class, or as much as there is."""
    module = sys.modules.get(str(getattr(found, "__module__", "")))
    file = getattr(module, "__file__", None)
    return f"{file}: {found.__qualname__}" if file and isinstance(found, type) else name


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

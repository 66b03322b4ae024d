"""Classes found by a name: those of this package, and those that installed packages add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind.

    A package of its own adds one with an entry point whose name is the word users choose it by and
    whose value is a class derived from `base`. It cannot replace one of this package.

    Args:
        key: The setting that names one, such as `retriever.kind`.
        noun: What one is called.
        group: The group of entry points.
        base: What its classes derive from.
        built_in: "module:Class" of those of this package; imported when they are asked for.
        words: What the setting can be beside names of classes.
    """

    def __init__(
        self,
        key: str,
        noun: str,
        group: str,
        base: type[T],
        built_in: Mapping[str, str],
        words: Sequence[str] = (),
    ) -> None:
        self._key, self._noun, self._group, self._base = key, noun, group, base
        self._built_in, self._words = built_in, words

    def names(self) -> list[str]:
        """All that the setting can be."""
        added = set(added_classes(self._group)).difference(self._built_in)
        return [*self._words, *self._built_in, *sorted(added)]

    def find(self, name: str) -> type[T]:
        """Imports the class of a name; nothing heavy, where that is left to its use.

        Raises:
            ConfigError: There is none of that name, or another package's cannot be loaded.
        """
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            return self._checked(name, getattr(import_module(module), attribute), "it")
        entry = added_classes(self._group).get(name)
        if entry is None:
            raise ConfigError(
                f"{self._key}={name}: there is no such {self._noun}. {nearest(name, self.names())}"
            )
        try:
            found = entry.load()
        except Exception as error:  # whatever the other package raises
            raise ConfigError(
                f"{self._key}={name}: the entry point {entry.value} cannot be loaded: {error}"
            ) from error
        return self._checked(name, found, entry.value)

    def _checked(self, name: str, found: Any, said: str) -> type[T]:
        if not (isinstance(found, type) and issubclass(found, self._base)):
            raise ConfigError(f"{self._key}={name}: {said} is no {self._base.__name__}")
        return found


def added_classes(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; the last of a name counts."""
    return {entry.name: entry for entry in entry_points(group=group)}

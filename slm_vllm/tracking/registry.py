"""Which class serves which `tracking.tracker`.

A package of its own can add one with an entry point in the group `slm_vllm.trackers`, whose name
is the tracker's and whose value is a class derived from `BaseTracker`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest
from slm_vllm.tracking.base import BaseTracker

ENTRY_POINT_GROUP = "slm_vllm.trackers"
# What `auto` asks whether it is configured.
AUTOMATIC = "clearml"

_BUILT_IN = {
    "clearml": "slm_vllm.tracking.clearml.server:ClearMLServer",
    "clearml_offline": "slm_vllm.tracking.clearml.offline:ClearMLOffline",
}


def tracker_names() -> list[str]:
    """All that `tracking.tracker` can be, trackers of installed packages included."""
    added = {entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)}
    return ["auto", "none", *_BUILT_IN, *sorted(added - set(_BUILT_IN))]


def tracker_class(name: str) -> type[BaseTracker]:
    """Imports the class of a tracker; what it needs beside is imported when it is used.

    Raises:
        ConfigError: There is none of that name, or its entry point cannot be loaded.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
        assert issubclass(found, BaseTracker)
        return found
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return _loaded(entry.load, name, entry.value)
    raise ConfigError(f"tracking.tracker={name}: no such tracker. {nearest(name, tracker_names())}")


def _loaded(load: object, name: str, value: str) -> type[BaseTracker]:
    try:
        found = load()  # type: ignore[operator]
    except Exception as error:  # whatever the other package raises
        raise ConfigError(
            f"tracking.tracker={name}: the entry point {value} cannot be loaded: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseTracker)):
        raise ConfigError(f"tracking.tracker={name}: {value} is not a class of trackers")
    return found

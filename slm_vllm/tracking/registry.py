"""The trackers by name. Another service is one class and one line here."""

from __future__ import annotations

from importlib import import_module

from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest
from slm_vllm.tracking.base import BaseTracker

TRACKERS = {
    "none": "slm_vllm.tracking.none:NoTracker",
    "clearml": "slm_vllm.tracking.clearml.server:ClearMLServer",
    "clearml_offline": "slm_vllm.tracking.clearml.offline:ClearMLOffline",
}


def tracker_class(name: str) -> type[BaseTracker]:
    """Imports the class of a tracker.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in TRACKERS:
        raise ConfigError(f"tracking.tracker={name}: no such tracker. {nearest(name, TRACKERS)}")
    module, _, attribute = TRACKERS[name].partition(":")
    found: type[BaseTracker] = getattr(import_module(module), attribute)
    return found

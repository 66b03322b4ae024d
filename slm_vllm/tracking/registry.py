"""Which class serves which `tracking.tracker`.

A package of its own can add one with an entry point in the group `slm_vllm.trackers`, whose name
is the tracker's and whose value is a class derived from `BaseTracker`.
"""

from __future__ import annotations

from slm_vllm.plugins import Registry
from slm_vllm.tracking.base import BaseTracker

# What `auto` asks whether it is configured.
AUTOMATIC = "clearml"

_TRACKERS = Registry(
    key="tracking.tracker",
    noun="tracker",
    group="slm_vllm.trackers",
    base=BaseTracker,  # type: ignore[type-abstract]
    built_in={
        "clearml": "slm_vllm.tracking.clearml.server:ClearMLServer",
        "clearml_offline": "slm_vllm.tracking.clearml.offline:ClearMLOffline",
    },
    words=("auto", "none"),
    arguments=("folder", "memory", "remember"),
)

tracker_names = _TRACKERS.names
tracker_class = _TRACKERS.find
check_tracker = _TRACKERS.check

"""What the context of a run makes of it in a comparison, whichever class its mode is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from slm_vllm.rundir.reading import RunData

Role = Literal["closed book", "context", "bound"]
"""The question alone; passages that the run found or was given; the row's own gold contexts.

In the order in which a report lists them.
"""
ROLES: tuple[Role, ...] = ("closed book", "context", "bound")


def role_of(run: RunData) -> Role:
    """The role of a run, from what its folder says: its mode may be of a plug-in that is not here.

    An earlier version's results do not say whether gold contexts were shown; only the oracle did.
    """
    context = context_of(run)
    if run.results.get("uses_gold", context == "oracle"):
        return "bound"
    return "closed book" if context == "none" else "context"


def context_of(run: RunData) -> str:
    """The run's value of `experiment_mode.context`."""
    mode = run.config.get("experiment_mode")
    return str(mode.get("context")) if isinstance(mode, Mapping) else ""

"""`state.json`: the current state of a run, for other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, cast

import psutil

from slm_vllm.rundir import names
from slm_vllm.rundir.contents import OwnProcess, State
from slm_vllm.rundir.folder import RunFolder

_HEARTBEAT_SECONDS = 5.0


class RunState:
    """Keeps `state.json` of a run folder current."""

    def __init__(self, folder: RunFolder, name: str) -> None:
        self._folder = folder
        self._written_at = 0.0
        self._content = cast(State, {"name": name, **own_process(), "started": now()})

    @property
    def phase(self) -> str:
        """The phase last written."""
        return str(self._content.get("phase", ""))

    def update(self, phase: str, **counts: Any) -> None:
        """Writes the phase and any counts."""
        changes: dict[str, Any] = {"phase": phase, "heartbeat": now(), **counts}
        self._content.update(cast(State, changes))
        self._folder.write_json(names.STATE, self._content)
        self._written_at = time.monotonic()

    def beat(self, figures: Callable[[], Mapping[str, Any]]) -> None:
        """Writes figures, made only then, if the last heartbeat is some seconds old."""
        if time.monotonic() - self._written_at >= _HEARTBEAT_SECONDS:
            self.update(self.phase, **figures())


def own_process() -> OwnProcess:
    """This process as state files name it."""
    return {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}


def now() -> str:
    """The time as ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

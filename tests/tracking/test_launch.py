"""How long a command waits for its publisher; none is started."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slm_vllm.rundir.names import SPOOL
from slm_vllm.tracking import launch
from slm_vllm.tracking.base import Publication
from slm_vllm.tracking.events import Ended
from slm_vllm.tracking.launch import PublishedTracking
from slm_vllm.tracking.spool import Spool


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that each publisher had to deliver the rest."""
    bounds: list[float] = []

    def wait(_: Any, bound: float) -> bool:
        bounds.append(bound)
        return False

    monkeypatch.setattr(
        launch, "start_publisher", lambda *_: SimpleNamespace(stdin=io.StringIO(), pid=1)
    )
    monkeypatch.setattr(launch, "wait_for", wait)
    return bounds


def test_only_what_was_recorded_is_waited_for(tmp_path: Path, waited: list[float]) -> None:
    said: list[str] = []
    publication = Publication("clearml", {}, 30.0)
    for recorded in (False, True):
        with PublishedTracking(publication, said.append) as tracking:
            tracking.recorder(tmp_path)
            if recorded:
                spool = Spool(tmp_path / SPOOL)
                spool.append(Ended("finished"))
                spool.close()
    assert waited == [0.0, 30.0]
    assert len(said) == 1

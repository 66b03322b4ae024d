"""Work of this process tree is not other work; that of strangers is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from slm_vllm.monitoring import other_work
from slm_vllm.monitoring.other_work import OtherWork


def test_what_others_did_is_what_the_machine_did_without_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = SimpleNamespace(monotonic=iter([10.0, 14.0]).__next__)
    machine = iter([100.0, 108.0])  # eight seconds of two cores
    ours = iter([50.0, 53.0])
    monkeypatch.setattr(other_work, "time", now)
    monkeypatch.setattr(other_work, "_busy_seconds", lambda: next(machine))
    monkeypatch.setattr(other_work, "_own_seconds", lambda: next(ours))
    assert OtherWork().cores_busy() == 1.25


def test_idle_and_waiting_for_the_disk_is_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    times: Any = psutil.cpu_times()
    fields = dict.fromkeys(times._fields, 0.0) | {"user": 3.0, "idle": 100.0, "iowait": 7.0}
    monkeypatch.setattr(psutil, "cpu_times", lambda: type(times)(**fields))
    assert other_work._busy_seconds() == 3.0


def test_own_work_is_counted() -> None:
    before = other_work._own_seconds()
    sum(range(3_000_000))
    assert other_work._own_seconds() > before

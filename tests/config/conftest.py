"""What composes configurations is the subject here."""

from __future__ import annotations

import pytest

from support.composed_once import each_time


@pytest.fixture(autouse=True)
def composed_each_time(composed_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_vllm.config.compose._compose_raw", each_time)

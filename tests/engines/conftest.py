"""What holds for all tests of engines."""

from __future__ import annotations

import pytest

from slm_vllm.engines.fork_server import SPAWN_VARIABLE


@pytest.fixture(autouse=True)
def _engines_may_be_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM, loaded by another test of this process, may have said that they may not."""
    monkeypatch.delenv(SPAWN_VARIABLE, raising=False)

"""When a server that is away is asked again; no server, no clock."""

from __future__ import annotations

import asyncio

import pytest

from slm_vllm.engines.adaptive_limit import AdaptiveLimit
from slm_vllm.engines.openai_models import Unusable
from slm_vllm.engines.openai_server import Server
from slm_vllm.engines.server_pool import RetryPolicy, ServerPool


def waits_until_it_is_back(away: float, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds between the questions to a server that is back after so many."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def probe(_: Server) -> None:
        if sum(waits) < away:
            raise Unusable("nobody there")

    async def run() -> None:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        server = Server("http://localhost:9/v1", None, AdaptiveLimit(8, 8), "completions")
        pool = ServerPool([server], RetryPolicy(), probe, lambda _: None)
        assert await pool.free_server() is server

    asyncio.run(run())
    return waits


def test_the_return_of_a_server_is_soon_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = waits_until_it_is_back(100, monkeypatch)
    assert waits == [2, 4, 8, 15, 15, 15, 15, 15, 15]
    assert sum(waits) - 100 < 15


def test_one_that_is_soon_back_is_asked_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits_until_it_is_back(5, monkeypatch) == [2, 4]

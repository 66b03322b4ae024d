"""When a server that is away is asked again; no server, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from slm_vllm.engines.adaptive_limit import AdaptiveLimit
from slm_vllm.engines.openai_answers import Failed, Trouble
from slm_vllm.engines.openai_models import Unusable
from slm_vllm.engines.openai_server import Server
from slm_vllm.engines.server_pool import RetryPolicy, ServerPool
from slm_vllm.errors import EngineError


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


def in_a_pool(
    work: Callable[[ServerPool, Server, list[float]], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs it with one server that is up, and a clock that it can set."""
    clock = [0.0]

    async def probe(_: Server) -> None:
        raise Unusable("nobody there")

    async def run() -> None:
        monkeypatch.setattr("time.monotonic", lambda: clock[0])
        server = Server("http://localhost:9/v1", None, AdaptiveLimit(8, 8), "completions")
        server.down = None
        pool = ServerPool([server], RetryPolicy(), probe, lambda _: None)
        await work(pool, server, clock)
        await pool.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("trouble", "failures"), [("connection", 3), ("server", 3), ("timeout", 3), ("refused", 1)]
)
def test_a_server_is_left_out_after_failures_without_an_answer_between_them(
    trouble: Trouble, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pool: ServerPool, server: Server, _: list[float]) -> None:
        def fail() -> bool:
            pool.failed(server, 0, Failed(trouble, "no"))
            return server.down is not None

        assert not any([fail() for _ in range(failures - 1)])
        pool.answered(server)
        assert [fail() for _ in range(failures)] == [False] * (failures - 1) + [True]

    in_a_pool(work, monkeypatch)


@pytest.mark.parametrize("trouble", ["load", "request"])
def test_what_is_not_the_servers_fault_leaves_it_in(
    trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pool: ServerPool, server: Server, _: list[float]) -> None:
        for _ in range(10):
            assert pool.failed(server, 0, Failed(trouble, "no")) == 0.0
        assert server.down is None and server.n_retries == 10

    in_a_pool(work, monkeypatch)


def test_patience_lasts_from_the_first_failure_to_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(pool: ServerPool, server: Server, clock: list[float]) -> None:
        for clock[0] in (0.0, 119.9):
            pool.failed(server, 0, Failed("connection", "nobody there"))
        clock[0] = 500.0
        assert await pool.free_server() is server
        pool.failed(server, 0, Failed("connection", "nobody there"))
        with pytest.raises(EngineError, match="No server has answered for 500 seconds") as caught:
            await pool.free_server()
        assert "nobody there" in str(caught.value)

    in_a_pool(work, monkeypatch)


def test_an_answer_renews_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(pool: ServerPool, server: Server, clock: list[float]) -> None:
        pool.failed(server, 0, Failed("connection", "nobody there"))
        pool.answered(server)
        clock[0] = 500.0
        pool.failed(server, 0, Failed("connection", "nobody there"))
        assert await pool.free_server() is server

    in_a_pool(work, monkeypatch)

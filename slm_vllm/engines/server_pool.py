"""Several servers that share the load, and what becomes of one that dies."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from slm_vllm.engines.openai_server import Failed, Server, Unusable
from slm_vllm.errors import EngineError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long the engine keeps trying.

    Attributes:
        attempts: How often one request is sent before it becomes an error.
        first_delay: Seconds that a server in trouble is left in peace; doubles until it answers.
        longest_delay: Seconds of peace at most, whatever a server asks for.
        failures_until_down: Failed connections or time-outs in a row after which a server is
            left out.
        probe_delay: Seconds until a server that was left out is asked again; doubles too.
        patience: Seconds without any server until the run gives up.
    """

    attempts: int = 10
    first_delay: float = 0.5
    longest_delay: float = 60.0
    failures_until_down: int = 3
    probe_delay: float = 2.0
    patience: float = 120.0

    def delay(self, troubles: int) -> float:
        """Seconds to wait after so many troubles without an answer between them."""
        return float(min(self.longest_delay, self.first_delay * 2 ** min(troubles - 1, 30)))


class ServerPool:
    """Chooses a server for each request; runs inside one event loop.

    Args:
        servers: All of them; those that are down are asked again until they answer.
        policy: How long to keep trying.
        probe: Asks a server what it serves; raises `Unusable`.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        policy: RetryPolicy,
        probe: Callable[[Server], Awaitable[object]],
    ) -> None:
        self._servers = servers
        self._policy = policy
        self._probe = probe
        self._waiting: asyncio.Future[None] | None = None
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._none_since: float | None = None
        for server in servers:
            if server.down is not None:
                self._leave_out(server, server.down)

    async def free_server(self, avoid: Server | None = None) -> Server:
        """The server with most room, as soon as one has any.

        Args:
            avoid: Not this one, as long as another is up.

        Raises:
            EngineError: No server has answered for longer than the policy's patience.
        """
        while True:
            now = time.monotonic()
            self._give_up_if_too_long(now)
            up = [server for server in self._servers if server.down is None]
            up = [server for server in up if server is not avoid] or up
            free = [s for s in up if s.limit.has_room and s.paused_until <= now]
            if free:
                return min(free, key=lambda s: s.limit.in_flight / s.limit.limit)
            ends = [s.paused_until - now for s in up if s.paused_until > now]
            await self._change(min([0.5, *ends]))

    def answered(self, server: Server) -> None:
        """Notes an answer."""
        server.limit.answered()
        server.n_answers += 1
        server.failures_in_a_row = server.troubles_in_a_row = server.times_down = 0
        self._none_since = None
        self._wake()

    def failed(self, server: Server, number: int, failure: Failed) -> float:
        """Notes a failure; returns how long the request itself should wait."""
        server.n_retries += 1
        wait = 0.0
        if failure.trouble in ("load", "timeout"):
            if server.limit.refused(number):
                server.troubles_in_a_row += 1
            self._pause(server, failure)
        else:
            server.limit.failed()
        if failure.trouble == "server":
            server.troubles_in_a_row += 1
            wait = self._wait(failure, 1)
        if failure.trouble in ("connection", "timeout", "refused"):
            server.failures_in_a_row += 1
            enough = 1 if failure.trouble == "refused" else self._policy.failures_until_down
            if server.failures_in_a_row >= enough and server.down is None:
                self._leave_out(server, f"{server.url}: {failure}")
            elif failure.trouble == "connection":
                wait = self._policy.delay(server.failures_in_a_row)
        self._wake()
        return wait

    async def close(self) -> None:
        """Stops asking the servers that are down."""
        for task in self._probing.values():
            task.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)

    async def _change(self, seconds: float) -> None:
        """Waits until a server may have room; `asyncio.wait_for` can swallow a cancellation."""
        self._waiting = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(seconds, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _pause(self, server: Server, failure: Failed) -> None:
        """Leaves a server in peace; what waits goes to the others at once."""
        wait = self._wait(failure, server.troubles_in_a_row)
        server.paused_until = max(server.paused_until, time.monotonic() + wait)

    def _wait(self, failure: Failed, troubles: int) -> float:
        if failure.retry_after is not None:
            return min(failure.retry_after, self._policy.longest_delay)
        # Clients that were refused together should not come back together.
        return self._policy.delay(max(1, troubles)) * random.uniform(0.75, 1.25)

    def _leave_out(self, server: Server, reason: str) -> None:
        log.warning("left out for now: %s", reason)
        server.down = reason
        server.times_down += 1
        if all(other.down is not None for other in self._servers) and self._none_since is None:
            self._none_since = time.monotonic()
        self._probing[server.url] = asyncio.get_running_loop().create_task(self._revive(server))

    async def _revive(self, server: Server) -> None:
        # One that comes back only to fail again is asked less and less often.
        delay = min(self._policy.longest_delay, self._policy.probe_delay * 2**server.times_down / 2)
        while True:
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._policy.longest_delay)
            try:
                await self._probe(server)
            except Unusable as error:
                server.down = str(error)
                continue
            log.info("answers again: %s", server.url)
            server.down = None
            server.failures_in_a_row = 0
            self._wake()
            return

    def _give_up_if_too_long(self, now: float) -> None:
        if self._none_since is None or now - self._none_since < self._policy.patience:
            return
        if any(server.down is None for server in self._servers):
            return
        reasons = "\n".join(f"  {server.down}" for server in self._servers)
        raise EngineError(
            f"No server has answered for {now - self._none_since:.0f} seconds:\n{reasons}\n"
            "What was answered is kept; the same command goes on from there"
        )

"""Balances load over several servers, and takes failing ones out."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from slm_vllm.engines.openai_answers import Failed
from slm_vllm.engines.openai_models import Unusable
from slm_vllm.engines.openai_server import Server
from slm_vllm.errors import EngineError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long the engine keeps trying.

    Attributes:
        attempts: How often one request fails at servers that answer others before it becomes an
            error.
        first_delay: Seconds that a server in trouble is left in peace; doubles until it answers.
        longest_delay: Seconds of peace at most, whatever a server asks for.
        failures_until_down: Failures in a row, without an answer between them, after which a
            server is left out.
        probe_delay: Seconds until a server that was left out is asked again; doubles too.
        longest_probe_delay: Seconds at most between two such questions to a server that is still
            away, so that its return is soon noticed.
        patience: Seconds without any answer, in trouble, until the run gives up.
        say_after: Seconds between two lines to the user about a server that is left out.
    """

    attempts: int = 10
    first_delay: float = 0.5
    longest_delay: float = 60.0
    failures_until_down: int = 3
    probe_delay: float = 2.0
    longest_probe_delay: float = 15.0
    patience: float = 120.0
    say_after: float = 30.0

    def delay(self, troubles: int) -> float:
        """Seconds to wait after so many troubles without an answer between them."""
        return float(min(self.longest_delay, self.first_delay * 2 ** min(troubles - 1, 30)))


class ServerPool:
    """Chooses a server for each request; runs inside one event loop.

    A run of failures is a server's state: it is left out, asked for one token until it generates
    it, and the requests wait. No request is blamed for what fails while its server answers nobody.

    Args:
        servers: All of them; those that are down are asked again until they answer.
        policy: How long to keep trying.
        probe: Asks a server what it serves and whether it generates; raises `Unusable`.
        say: Tells the user.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        policy: RetryPolicy,
        probe: Callable[[Server], Awaitable[object]],
        say: Callable[[str], None],
    ) -> None:
        self._servers, self._policy = servers, policy
        self._probe, self._say = probe, say
        self._waiting: asyncio.Future[None] | None = None
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._trouble_since: float | None = None
        self._trouble_until = 0.0
        for server in servers:
            if server.down is not None:
                self._leave_out(server, server.down, policy.probe_delay)

    async def free_server(
        self, avoid: Server | None = None, give_up: Callable[[], bool] = lambda: False
    ) -> Server | None:
        """The server with most room, as soon as one has any.

        Args:
            avoid: Not this one, as long as another is up.
            give_up: Looked at again and again; None is returned when it says so.

        Raises:
            EngineError: No server can be used, or none has answered for longer than the policy's
                patience.
        """
        while not give_up():
            now = time.monotonic()
            self._check_patience()
            up = [server for server in self._servers if server.down is None]
            up = [server for server in up if server is not avoid] or up
            free = [s for s in up if s.limit.has_room and s.paused_until <= now]
            if free:
                return min(free, key=lambda s: s.limit.in_flight / s.limit.limit)
            ends = [s.paused_until - now for s in up if s.paused_until > now]
            await self._change(min([_LOOK_SECONDS, *ends]))
        return None

    def wake(self) -> None:
        """Has those that wait for a server look again."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def answered(self, server: Server) -> None:
        """Notes an answer."""
        server.limit.answered()
        server.n_answers += 1
        server.times_down = 0
        self._is_alive(server)

    def failed(self, server: Server, number: int, failure: Failed) -> float:
        """Notes a failure; returns how long the request itself should wait."""
        server.n_retries += 1
        if failure.trouble == "request":
            server.limit.failed()
            self._is_alive(server)
            return 0.0
        self._note_trouble()
        if failure.trouble in ("load", "timeout"):
            if server.limit.refused(number):
                server.refusals_in_a_row += 1
            self._pause(server, failure)
        else:
            server.limit.failed()
        if failure.trouble == "load":
            return 0.0
        server.failures_in_a_row += 1
        enough = 1 if failure.trouble == "refused" else self._policy.failures_until_down
        if server.failures_in_a_row >= enough and server.down is None:
            policy = self._policy
            soon = failure.trouble == "server"  # it is there, and the request may be at fault
            delay = policy.first_delay if soon else policy.probe_delay
            self._leave_out(server, f"{server.url}: {failure}", delay)
        return self._policy.delay(min(server.failures_in_a_row, 3))

    def give_up(self, server: Server, reason: str) -> None:
        """Leaves out a server that will never serve this run."""
        server.down, server.is_final = reason, True
        self.wake()

    async def close(self) -> None:
        """Stops asking the servers that are down."""
        for task in self._probing.values():
            task.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)

    def _note_trouble(self) -> float:
        self._trouble_until = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = self._trouble_until
        return self._trouble_until

    def _is_alive(self, server: Server) -> None:
        server.alive_at = time.monotonic()
        server.failures_in_a_row = server.refusals_in_a_row = 0
        self._trouble_since = None
        self.wake()

    async def _change(self, seconds: float) -> None:
        """Waits until a server may have room; `asyncio.wait_for` can swallow a cancellation."""
        self._waiting = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(seconds, self.wake)
        try:
            await self._waiting
        finally:
            timer.cancel()

    def _pause(self, server: Server, failure: Failed) -> None:
        """Leaves a server in peace; what waits goes to the others at once."""
        if failure.retry_after is not None:
            wait = min(failure.retry_after, self._policy.longest_delay)
        else:
            # Clients that were refused together should not come back together.
            wait = self._policy.delay(max(1, server.refusals_in_a_row)) * random.uniform(0.75, 1.25)
        server.paused_until = max(server.paused_until, time.monotonic() + wait)
        self.wake()

    def _leave_out(self, server: Server, reason: str, delay: float) -> None:
        log.warning("left out for now: %s", reason)
        server.down = reason
        # One that comes back only to fail again is asked less and less often.
        delay = min(self._policy.longest_delay, delay * 2**server.times_down)
        server.times_down += 1
        self._probing[server.url] = asyncio.get_running_loop().create_task(
            self._revive(server, delay)
        )

    async def _revive(self, server: Server, delay: float) -> None:
        since, clock = time.monotonic(), time.strftime("%H:%M:%S")
        said_at: float | None = None
        while not server.is_final:
            await asyncio.sleep(delay)
            delay = min(2 * max(delay, self._policy.probe_delay), self._policy.longest_probe_delay)
            try:
                await self._probe(server)
            except Unusable as error:
                server.down = str(error)
                server.dead_at = now = self._note_trouble()
                if said_at is None or now - said_at >= self._policy.say_after:
                    said_at = now
                    self._say(f"No answers since {clock}; it is asked again. {error}")
                continue
            except Exception as error:  # nobody would ask it again, and the run wait forever
                log.exception("%s: could not be asked again", server.url)
                self.give_up(server, f"{server.url}: {type(error).__name__}: {error}")
                return
            log.info("answers again: %s", server.url)
            if said_at is not None:
                self._say(f"{server.url}: answers again after {time.monotonic() - since:.0f} s")
            server.down = None
            self._is_alive(server)
            return

    def _check_patience(self) -> None:
        if all(server.is_final for server in self._servers):
            raise EngineError(f"No server can be used:\n{self._reasons()}")
        if self._trouble_since is None:
            return
        # From the first failure to the last one seen: while nobody is asked, nobody can answer.
        waited = self._trouble_until - self._trouble_since
        if waited < self._policy.patience:
            return
        if any(server.down is None and server.limit.in_flight for server in self._servers):
            return
        raise EngineError(
            f"No server has answered for {waited:.0f} seconds:\n{self._reasons()}\n"
            "What was answered is kept; the same command resumes from there"
        )

    def _reasons(self) -> str:
        busy = "has too much to do"
        return "\n".join(f"  {s.down or f'{s.url}: {busy}'}" for s in self._servers)

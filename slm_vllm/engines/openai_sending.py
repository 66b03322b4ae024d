"""Sends the requests of one stream inside the event loop: retries, answers, failures."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from slm_vllm.engines.openai_answers import Failed
from slm_vllm.engines.openai_server import Server
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.engines.server_pool import ServerPool
from slm_vllm.types import Completion, GenerationRequest

END = object()
"""The last item of a stream that ended well; of another it is the error."""
_IDLE_SECONDS = 0.005
_WIND_DOWN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A request to be sent, and what is known of its failures.

    Attributes:
        request: The request.
        failures: How often it failed at a server that has answered another since.
        open_failures: How often it failed since then: whose fault that is is not known yet.
        failed_at: The server of the last failure.
        failed_time: When that was.
        message: What it said.
    """

    request: GenerationRequest
    failures: int = 0
    open_failures: int = 0
    failed_at: Server | None = None
    failed_time: float = 0.0
    message: str = ""

    def failed(self, server: Server, message: str) -> _Attempt:
        """The same request after one more failure."""
        return replace(
            self,
            open_failures=self.open_failures + 1,
            failed_at=server,
            failed_time=time.monotonic(),
            message=message,
        )

    def judged(self) -> _Attempt:
        """The same with its failures counted if their server has proved to be well since.

        They are forgotten if it has proved not to be.
        """
        if self.failed_at is None:
            return self
        if self.failed_at.dead_at >= self.failed_time:
            return replace(self, open_failures=0)
        if self.failed_at.alive_at <= self.failed_time:
            return self
        return replace(self, failures=self.failures + self.open_failures, open_failures=0)


class Sending:
    """One stream.

    Args:
        ask: Sends one request to one server; raises `Failed`.
        attempts: See `RetryPolicy.attempts`.
        pool: Chooses the server.
        source: The requests.
        answers: Where completions go, and `END` or an error after the last of them.
        bound: How many of them may wait there.
    """

    def __init__(
        self,
        ask: Callable[[Server, GenerationRequest], Awaitable[Completion]],
        attempts: int,
        pool: ServerPool,
        source: Prefetcher[GenerationRequest],
        answers: queue.SimpleQueue[Any],
        bound: int,
    ) -> None:
        self._send_to, self._attempts = ask, attempts
        self._pool, self._source = pool, source
        self._answers, self._bound = answers, bound
        self._again: deque[_Attempt] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[Any] | None = None
        self._stopped = False
        self._defect: BaseException | None = None

    def stop(self) -> None:
        """Asks no more and drops what is under way."""
        self._stopped = True
        if self._main is not None:
            self._main.cancel()

    def wind_down(self) -> None:
        """Asks no more; what is not answered in seconds is dropped."""
        self._stopped = True
        self._pool.wake()

    async def run(self) -> None:
        """Sends until everything is answered; the last item put is the end mark or an error."""
        last: object = END
        self._main = asyncio.current_task()
        try:
            while not self._stopped:
                if self._defect is not None:
                    raise self._defect
                following = self._next()
                if following is not None:
                    await self._send(following)
                elif self._source.exhausted and not self._tasks and self._defect is None:
                    break
                else:
                    await asyncio.sleep(_IDLE_SECONDS)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_WIND_DOWN_SECONDS)
        except BaseException as error:  # raised again in the thread that reads the answers
            last = error
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._answers.put(last)

    def _next(self) -> _Attempt | None:
        if self._again:
            return self._again.popleft()
        if self._answers.qsize() >= self._bound:  # whoever reads them is slow
            return None
        request = self._source.take(wait=False)
        return None if request is None else _Attempt(request)

    async def _send(self, attempt: _Attempt) -> None:
        server = await self._pool.free_server(attempt.failed_at, lambda: self._stopped)
        if server is None:
            return
        attempt = attempt.judged()
        if attempt.failures >= self._attempts:
            self._answers.put(Completion.failed(attempt.request, attempt.message))
            return
        task = asyncio.get_running_loop().create_task(self._ask(server, attempt))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.sleep(0)  # it is under way when the next server is chosen

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Notes what no attempt should raise: its request would be lost in silence."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._defect = task.exception()

    async def _ask(self, server: Server, attempt: _Attempt) -> None:
        number, request = server.limit.send(), attempt.request
        try:
            completion = await self._send_to(server, request)
        except Failed as failure:
            message = f"{server.url}: {failure}"
            if failure.trouble == "refused" and not server.alive_at:
                await self._explain(server, failure)
            wait = self._pool.failed(server, number, failure)
            if failure.trouble == "request":
                self._answers.put(Completion.failed(request, message))
                return
            await asyncio.sleep(wait)
            self._again.append(attempt.failed(server, message))
        except BaseException:
            server.limit.failed()
            raise
        else:
            self._pool.answered(server)
            self._answers.put(completion)

    async def _explain(self, server: Server, failure: Failed) -> None:
        """Gives up a server that refuses its first requests, once for all of them."""
        if server.explanation is None:
            loop = asyncio.get_running_loop()
            server.explanation = loop.create_task(server.why_refused(failure))
        reason = await asyncio.shield(server.explanation)
        if reason is not None:
            self._pool.give_up(server, reason)

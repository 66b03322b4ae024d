"""Answers from running OpenAI-compatible servers, such as `vllm serve`.

Nothing of vLLM or a GPU is needed in this process. An event loop in a thread of its own sends the
requests; answers come back through a queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Coroutine, Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from slm_vllm.config.engine import EngineConfig, OpenAIConfig
from slm_vllm.engines.adaptive_limit import AdaptiveLimit
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.openai_server import (
    Failed,
    Served,
    Server,
    Unusable,
    api_url,
    make_client,
    request_body,
)
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.engines.server_pool import RetryPolicy, ServerPool
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

log = logging.getLogger(__name__)

T = TypeVar("T")
_END = object()
_FIRST_LIMIT = 16
_MOST_IN_FLIGHT = 512  # of one server; vLLM batches 256 by default and 1024 on large GPUs
_KEY_VARIABLE = "OPENAI_API_KEY"
_IDLE_SECONDS = 0.005


class OpenAIEngine(BaseEngine):
    """One or several servers that serve the same model.

    Args:
        settings: What a local engine would get; its tokenizer makes the texts for servers that
            take no token ids.
        config: The `engine` section.
        policy: How long to keep trying.
    """

    config_class: ClassVar[type[EngineConfig]] = OpenAIConfig

    def __init__(
        self,
        settings: EngineSettings,
        config: EngineConfig | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        super().__init__(settings, config)
        if not isinstance(config, OpenAIConfig):
            raise ConfigError("engine.name=openai needs a section with the address of a server")
        self._config = config
        self._names = (*settings.model_names, str(settings.model_path))
        self._policy = policy or RetryPolicy()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._servers: list[Server] = []
        self._pool: ServerPool | None = None
        self._text: _PromptText | None = None

    def start(self) -> EngineInfo:
        """Asks every server what it serves; those that fail are left out for now.

        Raises:
            EngineError: None can be used, or one takes shorter prompts than the run has.
        """
        key = _key(self._config.api_key_env)
        most = self._config.max_in_flight or _MOST_IN_FLIGHT
        self._servers = [
            Server(
                url, make_client(url, key, self._config.timeout), AdaptiveLimit(_FIRST_LIMIT, most)
            )
            for url in dict.fromkeys(api_url(url) for url in self._config.base_url)
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._thread.start()
        self._wait_for(self._open())
        served = {server.url: server.served for server in self._servers if server.served}
        lengths = [found.max_model_len for found in served.values() if found.max_model_len]
        details = {
            "servers": [server.url for server in self._servers],
            "served_model": sorted({found.name for found in served.values()}),
            "prompts": ["turns"]
            if self._config.endpoint == "chat"
            else sorted(
                {"token ids" if found.takes_token_ids else "text" for found in served.values()}
            ),
        }
        return EngineInfo("openai", min([self._settings.max_model_len, *lengths]), details)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        """See `BaseEngine.stream`."""
        if self._loop is None or self._pool is None:
            raise EngineError("The engine is not started")
        most = self._config.max_in_flight or _MOST_IN_FLIGHT
        source = Prefetcher(requests, most)
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sending = _Sending(self, self._pool, source, answers, bound=2 * most * len(self._servers))
        done = asyncio.run_coroutine_threadsafe(sending.run(), self._loop)
        try:
            while (item := answers.get()) is not _END:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._loop.call_soon_threadsafe(sending.stop)
            source.close()
            done.result()

    def close(self) -> None:
        """Closes all connections."""
        if self._loop is None or self._thread is None:
            return
        for server in self._servers:
            log.info(
                "%s: %d answers, %d failed attempts, at most %d requests at once",
                server.url,
                server.n_answers,
                server.n_retries,
                server.limit.highest,
            )
        self._wait_for(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = self._pool = None

    async def ask(self, server: Server, request: GenerationRequest) -> Completion:
        """One request to one server; raises `Failed`."""
        served = server.served
        assert served is not None
        body = request_body(self._settings, served, self._config.extra_body)
        if self._config.endpoint == "chat":
            if served.takes_token_ids:  # it is vLLM
                thinking = {"enable_thinking": self._settings.enable_thinking}
                body["extra_body"] = {"chat_template_kwargs": thinking} | body["extra_body"]
            return await server.ask_chat(request, body)
        prompt = request.prompt_token_ids if served.takes_token_ids else self._text_of(request)
        return await server.ask(request, prompt, body)

    @property
    def policy(self) -> RetryPolicy:
        """How long the engine keeps trying."""
        return self._policy

    def _text_of(self, request: GenerationRequest) -> str:
        if self._text is None:
            self._text = _PromptText(self._settings)
        return self._text.of(request.prompt_token_ids)

    async def _open(self) -> None:
        found = await asyncio.gather(
            *(self._probe(server) for server in self._servers), return_exceptions=True
        )
        for server, result in zip(self._servers, found, strict=True):
            if isinstance(result, Served):
                server.down = None
            elif isinstance(result, Unusable):
                server.down = str(result)
            elif isinstance(result, BaseException):
                raise result
        if all(server.down is not None for server in self._servers):
            reasons = "\n".join(f"  {server.down}" for server in self._servers)
            raise EngineError(f"No server can be used:\n{reasons}")
        self._pool = ServerPool(self._servers, self._policy, self._probe)

    async def _probe(self, server: Server) -> Served:
        served = await server.probe(self._names, self._config.served_model)
        needed = self._settings.max_model_len
        if served.max_model_len is not None and served.max_model_len < needed:
            raise Unusable(
                f"{server.url}: takes {served.max_model_len} tokens, this run needs up to "
                f"{needed}. Start it with --max-model-len {needed}, or set "
                f"model.max_model_len={served.max_model_len} (longer prompts then lose passages)"
            )
        return served

    async def _shut(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        await asyncio.gather(*(server.client.close() for server in self._servers))

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A request to be sent for the `number`th time, after it failed at a server."""

    request: GenerationRequest
    number: int = 1
    failed_at: Server | None = None


class _Sending:
    """The requests of one stream, inside the event loop."""

    def __init__(
        self,
        engine: OpenAIEngine,
        pool: ServerPool,
        source: Prefetcher[GenerationRequest],
        answers: queue.SimpleQueue[Any],
        bound: int,
    ) -> None:
        self._engine, self._pool, self._source = engine, pool, source
        self._answers, self._bound = answers, bound
        self._again: deque[_Attempt] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[Any] | None = None
        self._stopped = False
        self._defect: Exception | None = None

    def stop(self) -> None:
        """Asks no more and drops what is under way."""
        self._stopped = True
        if self._main is not None:
            self._main.cancel()

    async def run(self) -> None:
        """Sends until everything is answered; the last item put is the end mark or an error."""
        last: object = _END
        self._main = asyncio.current_task()
        try:
            while not self._stopped:
                if self._defect is not None:
                    raise self._defect
                following = self._next()
                if following is not None:
                    server = await self._pool.free_server(avoid=following.failed_at)
                    self._start(self._ask(server, following))
                    await asyncio.sleep(0)  # it is under way when the next server is chosen
                elif self._source.exhausted and not self._tasks and self._defect is None:
                    break
                else:
                    await asyncio.sleep(_IDLE_SECONDS)
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

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, server: Server, attempt: _Attempt) -> None:
        number, request = server.limit.send(), attempt.request
        try:
            completion = await self._engine.ask(server, request)
        except Failed as failure:
            wait = self._pool.failed(server, number, failure)
            if failure.trouble == "request" or attempt.number >= self._engine.policy.attempts:
                self._answers.put(_error(request, f"{server.url}: {failure}"))
                return
            await asyncio.sleep(wait)
            # A server that refuses everything is not the fault of the request.
            following = attempt.number + (failure.trouble != "refused")
            self._again.append(_Attempt(request, following, server))
        except asyncio.CancelledError:
            server.limit.failed()
            raise
        except Exception as error:
            server.limit.failed()
            self._defect = error
        else:
            self._pool.answered(server)
            self._answers.put(completion)


class _PromptText:
    """Prompts as text, for servers that take no token ids."""

    def __init__(self, settings: EngineSettings) -> None:
        from slm_vllm.models.tokenizer import load_tokenizer

        self._tokenizer = load_tokenizer(
            settings.model_path, trust_remote_code=bool(settings.extra.get("trust_remote_code"))
        )
        # Where the tokenizer puts a token in front of every text, the server's will do so again.
        added = list(self._tokenizer("")["input_ids"])
        self._front = added[0] if added else None

    def of(self, token_ids: list[int]) -> str:
        """The text that these tokens were made from."""
        if self._front is not None and token_ids[:1] == [self._front]:
            token_ids = token_ids[1:]
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))


def _key(variable: str | None) -> str:
    key = os.environ.get(variable or _KEY_VARIABLE, "")
    if variable is not None and not key:
        raise ConfigError(
            f"--api-key-env {variable}: this environment variable is not set or empty"
        )
    return key or "EMPTY"  # the client wants one; servers without keys ignore it


def _error(request: GenerationRequest, reason: str) -> Completion:
    return Completion(
        request.request_id, "", "error", len(request.prompt_token_ids), 0, error=reason
    )

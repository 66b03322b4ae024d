"""The engine for running OpenAI-compatible servers, such as `vllm serve`.

Nothing of vLLM or a GPU is needed in this process. An event loop in a thread of its own sends the
requests; answers come back through a queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Coroutine, Generator, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, TypeVar

from slm_vllm.config.engine import EngineConfig, OpenAIConfig
from slm_vllm.engines.adaptive_limit import AdaptiveLimit
from slm_vllm.engines.base import BaseEngine, auxiliary_settings
from slm_vllm.engines.openai_answers import Failed
from slm_vllm.engines.openai_models import Unusable
from slm_vllm.engines.openai_request import (
    CHOICES,
    contrary_defaults,
    neutral_fields,
    request_body,
)
from slm_vllm.engines.openai_sampling_proof import (
    LOGPROBS,
    TEST_PROMPT,
    TEST_REQUEST,
    TEST_TOKENS,
    Proof,
    disproven_message,
    proof_by_logprobs,
    prove_sampling,
    unproven_message,
)
from slm_vllm.engines.openai_sending import END, Sending
from slm_vllm.engines.openai_server import Server, api_url, make_client
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.engines.server_pool import RetryPolicy, ServerPool
from slm_vllm.engines.settings import EngineSettings, request_seed
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.types import AuxiliaryTask, Completion, EngineInfo, GenerationRequest

log = logging.getLogger(__name__)

T = TypeVar("T")
_FIRST_LIMIT = 16
_MOST_IN_FLIGHT = 512  # of one server; vLLM batches 256 by default and 1024 on large GPUs
_PROOF_SECONDS = 30.0  # of each answer to the test question
_KEY_VARIABLE = "OPENAI_API_KEY"


class OpenAIEngine(BaseEngine):
    """One or several servers that serve the same model.

    Args:
        settings: What a local engine would get; its tokenizer makes the texts for servers that
            take no token ids.
        config: The `engine` section.
        policy: How long to keep trying.
    """

    config_class: ClassVar[type[EngineConfig]] = OpenAIConfig
    auxiliary: ClassVar[frozenset[str]] = frozenset({"text"})

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
        # Without a name, the one model that a server has is meant.
        self._names = settings.model_names and (*settings.model_names, str(settings.model_path))
        self._policy = policy or RetryPolicy()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._servers: list[Server] = []
        self._pool: ServerPool | None = None
        self._sending: Sending | None = None
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
                url,
                make_client(url, key, self._config.timeout),
                AdaptiveLimit(_FIRST_LIMIT, most),
                self._config.endpoint,
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
            "sampling_proof": {
                server.url: str(server.proof) for server in self._servers if server.proof
            },
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
        sending = Sending(
            self._ask,
            self._policy.attempts,
            self._pool,
            source,
            answers,
            bound=2 * most * len(self._servers),
        )
        self._sending = sending
        done = asyncio.run_coroutine_threadsafe(sending.run(), self._loop)
        try:
            while (item := answers.get()) is not END:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._sending = None
            self._loop.call_soon_threadsafe(sending.stop)
            source.close()
            done.result()

    def wind_down(self) -> None:
        """Drops what has not been sent; what is under way has seconds to be answered."""
        loop, sending = self._loop, self._sending
        if loop is not None and sending is not None:
            loop.call_soon_threadsafe(sending.wind_down)

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

    async def _ask(self, server: Server, request: GenerationRequest) -> Completion:
        """One request to one server; raises `Failed`."""
        assert server.served is not None
        is_text = self._config.endpoint == "completions" and not server.served.takes_token_ids
        prompt = self._text_of(request) if is_text else request.prompt_token_ids
        body = self._body(server, request.auxiliary)
        if self._settings.generation.n > 1 and request.auxiliary is None:
            body["seed"] = request_seed(self._settings, request.request_id)
        try:
            return await server.ask(request, prompt, body)
        except Failed as failure:
            if not self._leave_out(server, body, failure):
                raise
            return await self._ask(server, request)

    def _body(self, server: Server, task: AuxiliaryTask | None = None) -> dict[str, Any]:
        served = server.served
        assert served is not None
        is_chat = server.endpoint == "chat"
        settings = self._settings if task is None else auxiliary_settings(self._settings, task)
        body = request_body(settings, served, server.refused_fields, chat=is_chat)
        if self._config.endpoint == "chat" and served.make == "vllm":
            thinking = {"enable_thinking": self._settings.enable_thinking}
            body["extra_body"]["chat_template_kwargs"] = thinking
        body["extra_body"] |= self._config.extra_body
        return body

    def _leave_out(
        self, server: Server, body: Mapping[str, Any], failure: Failed, nameless: bool = False
    ) -> bool:
        """Sends neutral fields no more for which a request was refused.

        Args:
            server: The server that refused it.
            body: What it was sent.
            failure: What it said.
            nameless: Whether all of them are taken for refused where it names none.

        Returns:
            Whether there were any: the request may be sent again.
        """
        if failure.trouble != "request":
            return False
        neutral = neutral_fields(self._settings, body) - set(self._config.extra_body)
        refused = {name for name in neutral if name in str(failure)}
        if nameless and not refused:
            refused = neutral
        if not refused <= server.refused_fields:
            server.refused_fields |= refused
            log.warning("%s refuses %s; not sent any more", server.url, ", ".join(sorted(refused)))
        return bool(refused)

    async def _prove(self, server: Server) -> None:
        """Finds out whether the run's sampling arrives; says so where that is not proven.

        Raises:
            Unusable: It does not.
        """
        refused_before = set(server.refused_fields)
        try:
            proof = await self._proof_of(server)
        except Failed as failure:
            server.refused_fields = refused_before
            reason = f"the test question is not answered ({failure}). {server.advice(failure)}"
            proof = Proof("unproven", reason.removesuffix(". "))
        before, server.proof = server.proof, proof
        if proof.outcome == "disproven":
            raise Unusable(disproven_message(server.url, proof))
        log.info("%s: sampling %s", server.url, proof)
        if proof == before:
            return
        if proof.outcome == "unproven":
            self.say(unproven_message(server.url, proof, contrary_defaults(self._settings)))
        elif before is not None:
            self.say(f"{server.url}: answers are made with this run's sampling")

    async def _proof_of(self, server: Server) -> Proof:
        def body_with(fields: Mapping[str, Any]) -> dict[str, Any]:
            body = self._body(server) | {"timeout": _PROOF_SECONDS}
            for name in ("stop", "n", "logprobs"):
                body.pop(name, None)
            for name in CHOICES:  # a constrained answer says nothing of sampling
                body["extra_body"].pop(name, None)
            body["extra_body"] |= {"max_tokens": TEST_TOKENS, "temperature": 0.0, **fields}
            return body

        async def ask(fields: Mapping[str, Any]) -> str:
            body = body_with(fields)
            try:
                return (await server.ask(TEST_REQUEST, TEST_PROMPT, body)).text
            except Failed as failure:
                if fields or not self._leave_out(server, body, failure, nameless=True):
                    raise
                return await ask(fields)

        usual = await ask({})  # now it is known what it refuses
        body, own = self._body(server), self._config.extra_body
        sent = {**own, **body, **body["extra_body"]}
        proof = await prove_sampling(ask, usual, sent, self._settings.generation.temperature)
        # Otherwise the run itself may have other tokens chosen than the likeliest.
        is_plain = self._settings.generation.repetition_penalty == 1.0 and not own
        if proof.outcome == "unproven" and is_plain:
            look = partial(proof_by_logprobs, proof)
            with suppress(Failed):
                fields = LOGPROBS[self._config.endpoint]
                return await server.ask_for(look, TEST_REQUEST, TEST_PROMPT, body_with(fields))
        return proof

    def _text_of(self, request: GenerationRequest) -> str:
        if self._text is None:
            self._text = _PromptText(self._settings)
        return self._text.of(request.prompt_token_ids)

    async def _open(self) -> None:
        found = await asyncio.gather(
            *(self._meet(server) for server in self._servers), return_exceptions=True
        )
        for server, result in zip(self._servers, found, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Unusable):
                raise result
            server.down = None if result is None else str(result)
        if all(server.down is not None for server in self._servers):
            reasons = "\n".join(f"  {server.down}" for server in self._servers)
            raise EngineError(f"No server can be used:\n{reasons}")
        self._pool = ServerPool(self._servers, self._policy, self._probe, self._tell)

    def _tell(self, text: str) -> None:
        self.say(text)

    async def _probe(self, server: Server) -> None:
        await self._find(server)
        await server.check_alive()
        if server.proof is None or server.proof.outcome != "proven":
            await self._prove(server)

    async def _meet(self, server: Server) -> None:
        await self._find(server)
        await self._prove(server)

    async def _find(self, server: Server) -> None:
        served = await server.list_models(self._names, self._config.served_model)
        needed = self._settings.max_model_len
        if served.max_model_len is not None and served.max_model_len < needed:
            raise Unusable(
                f"{server.url}: takes {served.max_model_len} tokens, this run needs up to "
                f"{needed}. Start it with room for {needed} (vLLM: --max-model-len), or set "
                f"model.max_model_len={served.max_model_len} (longer prompts then lose passages)"
            )

    async def _shut(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        await asyncio.gather(*(server.client.close() for server in self._servers))

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        under_way = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return under_way.result()
        finally:
            under_way.cancel()  # of what a signal has ended the wait for, nothing more is told


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
    name = variable or _KEY_VARIABLE
    key = os.environ.get(name, "").strip()  # without the line end of the file it came from
    if variable is not None and not key:
        raise ConfigError(f"--api-key-env {name}: this environment variable is not set or empty")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in the environment variable {name} has a line end or a letter beyond ASCII "
            "in it, which cannot be sent. Set it anew"
        )
    return key or "EMPTY"  # the client wants one; servers without keys ignore it

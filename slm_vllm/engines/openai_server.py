"""One OpenAI-compatible server: what it serves, how it is asked, its health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from slm_vllm.engines.adaptive_limit import AdaptiveLimit
from slm_vllm.engines.openai_answers import (
    Failed,
    failure_of,
    read_completion,
    read_json,
    reason_in,
    shortened,
    without_prompt,
)
from slm_vllm.engines.openai_models import Served, Unusable, cards_in, find_model, model_by_name
from slm_vllm.engines.openai_sampling_proof import Proof
from slm_vllm.errors import EngineError, MissingExtraError
from slm_vllm.proxies import goes_direct, proxy_advice
from slm_vllm.types import Completion, GenerationRequest

log = logging.getLogger(__name__)

T = TypeVar("T")

_LIST_SECONDS = 10.0
_ALIVE_SECONDS = 60.0  # of a probe of one token, which may have to queue
_NOT_FOUND = (404, 405, 501)
_NO_LIST = (
    "The address often ends in /v1. If this server has no list of models, name the model with "
    "engine.served_model=NAME"
)
_NOT_SERVED = (
    "engine.served_model=NAME is the model's name there; engine.endpoint=chat is for servers that "
    "answer chats only"
)
_GREETING = GenerationRequest("alive", [], [{"role": "user", "content": "Hello"}])

Endpoint = Literal["completions", "chat"]


class Server:
    """One base URL.

    Args:
        url: Address of the API, with or without the `/v1`.
        client: An `openai.AsyncOpenAI` for it.
        limit: How much it gets at once.
        endpoint: Whether it gets whole prompts or turns.
    """

    def __init__(self, url: str, client: Any, limit: AdaptiveLimit, endpoint: Endpoint) -> None:
        self.url = url
        self.client = client
        self.limit = limit
        self.endpoint = endpoint
        self.served: Served | None = None
        self.proof: Proof | None = None
        self.refused_fields: set[str] = set()
        self.down: str | None = "not asked yet"
        self.is_final = False
        self.explanation: asyncio.Task[str | None] | None = None
        self.failures_in_a_row = 0
        self.refusals_in_a_row = 0
        self.times_down = 0
        self.paused_until = 0.0
        self.alive_at = 0.0
        self.dead_at = 0.0
        self.n_answers = 0
        self.n_retries = 0

    async def list_models(self, names: Collection[str], wanted: str | None) -> Served:
        """Asks the server what it serves.

        Args:
            names: What the model may be called: its path, its repository.
            wanted: The one name it must have, if the user gave one. A server without a list that
                can be read is taken at the user's word.

        Raises:
            Unusable: It does not answer, or does not serve the model.
        """
        cards: list[dict[str, Any]] | None = None
        try:
            cards = await self._sent(self.client.models, "list", cards_in, timeout=_LIST_SECONDS)
        except Failed as failure:
            absent = failure.trouble not in ("connection", "timeout")
            if wanted is None or not absent or failure.status in (400, 401, 403):
                raise Unusable(self._problem(failure, _NO_LIST)) from None
            reason = f"has no list of models ({failure})"
        else:
            if cards is not None:
                try:
                    self.served = find_model(self.url, cards, names, wanted)
                    return self.served
                except Unusable as error:
                    if wanted is None:
                        raise
                    reason = str(error).partition(". ")[0].removeprefix(f"{self.url}: ")
            elif wanted is None:
                raise Unusable(f"{self.url}: its list of models cannot be read. {_NO_LIST}")
            else:
                reason = "its list of models cannot be read"
        log.warning("%s: %s; asked for %s all the same", self.url, reason, wanted)
        assert wanted is not None
        self.served = model_by_name(cards or [], wanted)
        return self.served

    async def check_alive(self) -> None:
        """Has one token generated: a list of models may be answered by a gateway alone.

        Raises:
            Unusable: It does not generate.
        """
        body: dict[str, Any] = {"max_tokens": 1, "timeout": _ALIVE_SECONDS}
        try:
            await self.ask(_GREETING, "Hello", body)
        except Failed as failure:
            # One that says what is wrong with the request is there.
            if failure.trouble != "request" and failure.status != 429:
                raise Unusable(f"{self.url}: {failure}") from None

    async def ask(
        self, request: GenerationRequest, prompt: Any, body: dict[str, Any]
    ) -> Completion:
        """Sends one whole prompt, or its turns to a server that gets chats.

        Raises:
            Failed: There is no answer; says what kind of trouble it was.
        """
        read = partial(read_completion, request, body=body)
        answer = await self.ask_for(read, request, prompt, body)
        if isinstance(prompt, str) and self.endpoint == "completions":
            return without_prompt(answer, prompt)
        return answer

    async def ask_for(
        self,
        read: Callable[[Any], T],
        request: GenerationRequest,
        prompt: Any,
        body: dict[str, Any],
    ) -> T:
        """As `ask`, for what `read` makes of the body of the response."""
        if self.endpoint == "chat":
            return await self._ask_chat(read, request, body)
        completions = self.client.completions
        return await self._sent(
            completions, "create", read, model=self._name, prompt=prompt, **body
        )

    async def _ask_chat(
        self, read: Callable[[Any], T], request: GenerationRequest, body: dict[str, Any]
    ) -> T:
        turns = [dict(turn) for turn in request.turns]
        chats = self.client.chat.completions
        return await self._sent(chats, "create", read, model=self._name, messages=turns, **body)

    async def why_refused(self, failure: Failed) -> str | None:
        """The reason of a server that refuses its first request; None if it takes others."""
        try:
            await self.check_alive()
        except Unusable:
            pass
        else:
            return None
        if self.endpoint == "completions" and failure.status in (404, 405):
            try:
                read = partial(read_completion, _GREETING)
                await self._ask_chat(read, _GREETING, {"max_tokens": 1})
            except Failed:
                pass
            else:
                return (
                    f"{self.url}: answers chats only, it has no /completions ({failure}). Use "
                    "engine.endpoint=chat: the server then puts the prompts together itself"
                )
        return self._problem(failure, _NOT_SERVED)

    @property
    def _name(self) -> str:
        assert self.served is not None
        return self.served.name

    async def _sent(
        self, resource: Any, method: str, read: Callable[[Any], T], **arguments: Any
    ) -> T:
        """What `read` makes of the JSON that comes back; the client's types expect OpenAI's."""
        import openai

        send: Callable[..., Awaitable[Any]] = getattr(resource.with_raw_response, method)
        try:
            response = await send(**arguments)
            try:
                return read(read_json(response.text))
            except Failed:  # once more without the key, which the message may hold
                return read(read_json(self._hidden(response.text)))
        except openai.APITimeoutError:
            raise Failed("timeout", "no answer in time") from None
        except openai.APIConnectionError as error:
            reason = shortened(str(error.__cause__ or error)) or type(error).__name__
            raise Failed("connection", f"does not answer ({self._hidden(reason)})") from None
        except openai.APIStatusError as error:
            answer = error.response
            raise failure_of(
                int(error.status_code), answer.headers, self._hidden(answer.text)
            ) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            reason = self._hidden(shortened(str(error)))
            raise Failed("server", f"an answer that cannot be read: {reason}") from None

    def advice(self, failure: Failed, if_not_found: str = _NOT_SERVED) -> str:
        """What to do about a failure; empty where its own words are enough."""
        proxy = proxy_advice(self.url)
        if failure.trouble == "connection":
            return proxy or (
                "Is the server started, and is the address right? vLLM: `vllm serve MODEL --port "
                "8000`, then --base-url http://HOST:8000/v1"
            )
        if failure.status in (401, 403):
            return (
                "Put the right key into the environment variable that --api-key-env names "
                "(OPENAI_API_KEY without it)"
            )
        if failure.status == 400:
            return (
                "Some gateways say so to a wrong or missing key: --api-key-env names the "
                "environment variable that holds it (OPENAI_API_KEY without it)"
            )
        has_no_form = failure.status is None and failure.trouble == "server"
        return if_not_found if has_no_form or failure.status in _NOT_FOUND else proxy

    def _problem(self, failure: Failed, if_not_found: str) -> str:
        """A failure that ends the use of this server, with what to do about it."""
        what = f"refuses the key ({failure})" if failure.status in (401, 403) else str(failure)
        advice = self.advice(failure, if_not_found)
        return f"{self.url}: " + (f"{what.removesuffix('.')}. {advice}" if advice else what)

    def _hidden(self, text: str) -> str:
        """Without the key, which some servers repeat when they refuse it."""
        return text.replace(self.client.api_key, "***")


def make_client(url: str, key: str, timeout: float) -> Any:
    """The official client, without its own retries.

    Raises:
        MissingExtraError: It is not installed.
        EngineError: The proxy that the environment names cannot be used.
    """
    try:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient
    except ImportError:
        raise MissingExtraError("openai", "openai", "--engine openai") from None
    try:
        http = DefaultAsyncHttpxClient(trust_env=not goes_direct(url))
    except (ImportError, ValueError) as error:  # SOCKS without its package; no address
        raise EngineError(
            f"{url}: the proxy of the environment cannot be used ({reason_in(str(error))}). "
            f"{proxy_advice(url)}"
        ) from None
    return AsyncOpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0, http_client=http)


def api_url(url: str) -> str:
    """The address with the `/v1` that a bare host lacks."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") or "/v1"))

"""One OpenAI-compatible server: what it serves, how it is asked, how it is doing."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from slm_vllm.engines.adaptive_limit import AdaptiveLimit
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import MissingExtraError
from slm_vllm.types import Completion, GenerationRequest

log = logging.getLogger(__name__)

_PROBE_SECONDS = 10.0
_LOAD = (408, 429, 503, 529)  # the server is there and has too much to do
_REFUSED = (401, 403, 404, 405)  # no request will do better
_LONGEST_MESSAGE = 300

Trouble = Literal["load", "timeout", "connection", "server", "refused", "request"]


class Unusable(Exception):
    """A server that cannot serve the run; the message says why and what to do."""


class Failed(Exception):
    """One request that got no answer.

    Attributes:
        trouble: "load": too much at once. "timeout": no answer. "connection": nobody there.
            "server": an error or nonsense from the server. "refused": the server will refuse
            every request. "request": this one is at fault, asking again would not help.
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(self, trouble: Trouble, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of the model.

    Attributes:
        name: The name it knows the model by.
        max_model_len: Longest prompt plus answer in tokens, where it says so (vLLM does).
        takes_token_ids: Whether prompts go as token ids, exactly those of a local run.
    """

    name: str
    max_model_len: int | None
    takes_token_ids: bool


class Server:
    """One base URL.

    Args:
        url: Address of the API, with or without the `/v1`.
        client: An `openai.AsyncOpenAI` for it.
        limit: How much it gets at once.
    """

    def __init__(self, url: str, client: Any, limit: AdaptiveLimit) -> None:
        self.url = url
        self.client = client
        self.limit = limit
        self.served: Served | None = None
        self.down: str | None = "not asked yet"
        self.failures_in_a_row = 0
        self.troubles_in_a_row = 0
        self.times_down = 0
        self.paused_until = 0.0
        self.n_answers = 0
        self.n_retries = 0

    async def probe(self, names: Collection[str], wanted: str | None) -> Served:
        """Asks the server what it serves.

        Args:
            names: What the model may be called: its path, its repository.
            wanted: The one name it must have, if the user gave one.

        Raises:
            Unusable: It does not answer, or does not serve the model.
        """
        import openai

        try:
            page = await self.client.models.list(timeout=_PROBE_SECONDS)
            cards = [card.model_dump() for card in page.data]
        except openai.APIStatusError as error:
            raise Unusable(self._hidden(_status_problem(self.url, error))) from None
        except openai.APIConnectionError as error:
            reason = str(error.__cause__ or error) or type(error).__name__
            raise Unusable(
                f"{self.url}: does not answer ({reason}). Is the server started, and is the "
                "address right? vLLM: `vllm serve MODEL --port 8000`, then "
                "--base-url http://HOST:8000/v1"
            ) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            raise Unusable(
                f"{self.url}: its list of models cannot be read ({_short(error)}). "
                "Is it the address of an OpenAI-compatible API (it often ends in /v1)?"
            ) from None
        self.served = find_model(self.url, cards, names, wanted)
        return self.served

    async def ask(
        self, request: GenerationRequest, prompt: Any, body: dict[str, Any]
    ) -> Completion:
        """Sends one whole prompt.

        Raises:
            Failed: There is no answer; says what kind of trouble it was.
        """
        asked = self.client.completions.create(model=self._name, prompt=prompt, **body)
        return await self._answer(request, asked, lambda choice: choice.text)

    async def ask_chat(self, request: GenerationRequest, body: dict[str, Any]) -> Completion:
        """Sends the turns of a chat; see `ask`."""
        turns = [dict(turn) for turn in request.turns]
        asked = self.client.chat.completions.create(model=self._name, messages=turns, **body)
        return await self._answer(request, asked, lambda choice: choice.message.content)

    @property
    def _name(self) -> str:
        assert self.served is not None
        return self.served.name

    async def _answer(
        self, request: GenerationRequest, asked: Awaitable[Any], text_of: Callable[[Any], Any]
    ) -> Completion:
        import openai

        try:
            return _completion(request, await asked, text_of)
        except openai.APITimeoutError:
            raise Failed("timeout", "no answer in time (engine.timeout)") from None
        except openai.APIConnectionError as error:
            reason = str(error.__cause__ or error) or type(error).__name__
            raise Failed("connection", f"connection failed: {reason}") from None
        except openai.APIStatusError as error:
            raise _status_failure(error, self._hidden) from None
        except (openai.OpenAIError, json.JSONDecodeError, ValueError) as error:
            raise Failed("server", f"unreadable answer: {_short(error)}") from None
        except (TypeError, AttributeError, IndexError, KeyError) as error:
            raise Failed("server", f"an answer of another form: {_short(error)}") from None

    def _hidden(self, text: str) -> str:
        """Without the key, which some servers repeat when they refuse it."""
        return text.replace(self.client.api_key, "***")


def make_client(url: str, key: str, timeout: float) -> Any:
    """The official client, without its own retries.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from openai import AsyncOpenAI
    except ImportError:
        raise MissingExtraError("openai", "openai", "--engine openai") from None
    return AsyncOpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0)


def api_url(url: str) -> str:
    """The address with the `/v1` that a bare host lacks."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") or "/v1"))


def find_model(
    url: str, cards: list[dict[str, Any]], names: Collection[str], wanted: str | None
) -> Served:
    """The entry of a server's list of models that is the run's model.

    Raises:
        Unusable: There is none; names what is served.
    """
    for card in cards:
        found = {str(card.get("id")), str(card.get("root"))}
        if (wanted in found) if wanted else (found & set(names)):
            length = card.get("max_model_len")
            return Served(
                name=str(card["id"]),
                max_model_len=length if isinstance(length, int) else None,
                takes_token_ids=isinstance(length, int) or card.get("owned_by") == "vllm",
            )
    listed = ", ".join(str(card.get("id")) for card in cards) or "nothing"
    asked = wanted or " or ".join(dict.fromkeys(names))
    raise Unusable(
        f"{url}: serves {listed}, not {asked}. If one of them is the model of this run, name it "
        "with engine.served_model=NAME"
    )


def request_body(settings: EngineSettings, served: Served, extra: dict[str, Any]) -> dict[str, Any]:
    """Everything of a request but its prompt.

    vLLM fills what is not said from the model's own generation_config.json, where a local run
    takes the neutral value: so everything is said. Other servers refuse fields they do not know,
    and get only what differs from the neutral value.
    """
    generation = settings.generation
    body: dict[str, Any] = {
        "max_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
    }
    if settings.stop:
        body["stop"] = list(settings.stop)
    if generation.temperature > 0:
        body["seed"] = settings.seed
    more: dict[str, Any] = {}
    if served.takes_token_ids or generation.top_k is not None:
        more["top_k"] = generation.top_k if generation.top_k is not None else -1
    if served.takes_token_ids or generation.repetition_penalty != 1.0:
        more["repetition_penalty"] = generation.repetition_penalty
    return {**body, "extra_body": {**more, **extra}}


def _completion(
    request: GenerationRequest, answer: Any, text_of: Callable[[Any], Any]
) -> Completion:
    choice = answer.choices[0]
    text = text_of(choice)
    if not isinstance(text, str):
        raise TypeError("choices[0] has no text")
    usage = answer.usage
    return Completion(
        request_id=request.request_id,
        text=text,
        finish_reason=choice.finish_reason or "stop",
        n_prompt_tokens=int(usage.prompt_tokens) if usage else len(request.prompt_token_ids),
        n_completion_tokens=int(usage.completion_tokens) if usage else 0,
    )


def _status_failure(error: Any, hidden: Callable[[str], str]) -> Failed:
    status = int(error.status_code)
    message = hidden(f"status {status}: {_short(error)}")
    if status in _LOAD:
        return Failed("load", message, _retry_after(error.response.headers))
    if status >= 500 or status == 409:
        return Failed("server", message, _retry_after(error.response.headers))
    return Failed("refused" if status in _REFUSED else "request", message)


def _status_problem(url: str, error: Any) -> str:
    status = int(error.status_code)
    if status in (401, 403):
        return (
            f"{url}: refuses the key (status {status}). Put the right one into the environment "
            "variable that --api-key-env names (OPENAI_API_KEY without it)"
        )
    if status == 404:
        return f"{url}: has no list of models (status 404). The address often ends in /v1"
    return f"{url}: answers with status {status}: {_short(error)}"


def _retry_after(headers: Any) -> float | None:
    """Seconds; the header may also hold a date, which is left to the usual back-off."""
    try:
        return max(0.0, float(headers.get("retry-after")))
    except (TypeError, ValueError):
        return None


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 3] + "..."

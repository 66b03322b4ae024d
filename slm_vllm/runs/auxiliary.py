"""Auxiliary requests: prompts other than the run's questions, each answered once and cached.

A judge's prompts about answers, and what the model is asked before a search (reranking, expansion).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from typing import Generic, Protocol, TypeVar

from slm_vllm.errors import EngineError
from slm_vllm.runs.answer_cache import AnswerCache
from slm_vllm.runs.draining import Drain, ask_through_death
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.runs.services import Services
from slm_vllm.types import Completion, GenerationRequest, ThinkingBlock

FIXED_DAY = date(2025, 1, 1)
"""Chat templates may write the day, which replies to auxiliary requests must not depend on."""

_SAY_SECONDS = 10.0

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """An item as the engine gets it.

    Attributes:
        request: The prompt; named by the item's key.
        opened: The thinking block that the prompt leaves open.
        error: Why it cannot be asked, or None.
    """

    request: GenerationRequest
    opened: ThinkingBlock | None = None
    error: str | None = None


class Asker(Protocol[Item_contra]):
    """What is asked of which engine.

    Attributes:
        host: The engine.
        cache: Replies that were given in earlier commands.
    """

    host: EngineHost
    cache: AnswerCache

    def content(self, item: Item_contra) -> bytes:
        """A hash of the item and of all else that its reply depends on."""

    def requests(self, items: Iterable[tuple[int, Item_contra]]) -> Iterator[Asked]:
        """The prompts of items with their keys; runs in the engine's thread."""

    def reply(self, completion: Completion, asked: Asked) -> Completion:
        """What of a completion is kept."""


class AuxiliaryRequests(Generic[Item]):
    """Asks items until each has a reply or an error.

    Args:
        asker: Makes the prompts.
        services: Console and signals of the command.
        label: What is asked, for the user.
        record: Called with a key, its item and the reply, the moment that is there.
        counts: Where replies are counted: `asked`, `from_cache`, `failed`, and the tokens of those
            that were asked.
    """

    def __init__(
        self,
        asker: Asker[Item],
        services: Services,
        label: str,
        record: Callable[[int, Item, Completion], None],
        counts: Counter[str],
    ) -> None:
        self._asker, self._services, self._label = asker, services, label
        self._record, self._counts = record, counts
        self._open: dict[int, Item] = {}
        self._waiting: dict[str, Asked] = {}
        self._refused: list[Asked] = []
        self._stopped = False

    def ask(self, items: Mapping[int, Item]) -> None:
        """Asks items by their keys.

        Raises:
            EngineError: The engine cannot be started, died twice, or left items out.
            Interrupted: A signal came; what was replied is recorded.
        """
        self._open = dict(items)
        self._take_from_cache()
        if not self._open:
            return
        host = self._asker.host
        engine = host.engine
        ask_through_death(lambda _: self._stream(), host, self._services, self._stop)
        if self._open:
            raise EngineError(
                f"{self._label}: the engine {type(engine).__name__} ended without a reply to "
                f"{len(self._open)} of {len(items)} requests. The same command asks them"
            )

    def _take_from_cache(self) -> None:
        requests = (
            GenerationRequest(f"{key:016x}", self._cached_as(item))
            for key, item in list(self._open.items())
        )
        for completion in self._asker.cache.find(requests):
            key = int(completion.request_id, 16)
            self._record(key, self._open.pop(key), completion)
            self._counts["from_cache"] += 1

    def _cached_as(self, item: Item) -> list[int]:
        """What stands for the tokens of its prompt, which a chat server alone knows."""
        return list(self._asker.content(item))

    def _stream(self) -> None:
        self._waiting.clear()  # what was in flight in an engine that died
        self._refused.clear()
        total, begun, reported = len(self._open), time.monotonic(), time.monotonic()
        drain = Drain(self._services)
        with closing(self._asker.host.engine.stream(self._requests())) as completions:
            for completion in completions:
                self._take(completion)
                now = time.monotonic()
                if now - reported >= _SAY_SECONDS:
                    reported, done = now, total - len(self._open)
                    rate = f"{done / (now - begun):.1f}"
                    self._services.console.say(f"{self._label}: {done}/{total}  {rate} replies/s")
                if drain.is_over:
                    break
        self._take_refused()

    def _requests(self) -> Iterator[GenerationRequest]:
        """Runs in the engine's thread, so it records nothing itself."""
        for asked in self._asker.requests(list(self._open.items())):
            if self._stopped:
                return
            if asked.error is not None:
                self._refused.append(asked)
                continue
            self._waiting[asked.request.request_id] = asked
            yield asked.request

    def _take(self, completion: Completion) -> None:
        asked = self._waiting.pop(completion.request_id, None)
        if asked is None:
            raise EngineError(
                f"the engine answered request {completion.request_id}, which waits for no answer"
            )
        key = int(completion.request_id, 16)
        item = self._open.pop(key)
        reply = self._asker.reply(completion, asked)
        self._asker.cache.add(self._cached_as(item), reply)
        self._record(key, item, reply)
        self._counts["asked"] += 1
        self._counts["failed"] += reply.error is not None
        self._counts["prompt_tokens"] += reply.n_prompt_tokens
        self._counts["completion_tokens"] += reply.n_completion_tokens
        self._take_refused()

    def _take_refused(self) -> None:
        while self._refused:
            asked = self._refused.pop()
            key = int(asked.request.request_id, 16)
            failed = Completion(asked.request.request_id, "", "error", 0, 0, error=asked.error)
            self._record(key, self._open.pop(key), failed)
            self._counts["failed"] += 1

    def _stop(self) -> None:
        self._stopped = True
        self._asker.host.engine.wind_down()

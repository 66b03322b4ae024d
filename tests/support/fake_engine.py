"""An engine that needs no model, for tests of the loop around the engine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineDiedError
from slm_vllm.types import Completion, EngineInfo, GenerationRequest


class FakeEngine(BaseEngine):
    """Answers every prompt with its own length in tokens.

    Args:
        dies_after: Raise `EngineDiedError` instead of the answer after so many.
        deaths: How many streams end so; further ones are answered to the end.
        fails: Prompts (by position in this stream) that get an error.
        on_answer: Called with the number of answers given, before each.
    """

    def __init__(
        self,
        dies_after: int | None = None,
        fails: frozenset[int] = frozenset(),
        on_answer: Callable[[int], None] | None = None,
        deaths: int = 2,
    ) -> None:
        self.asked: list[GenerationRequest] = []
        self.starts = self.closes = 0
        self._deaths = deaths
        self._dies_after, self._fails, self._on_answer = dies_after, fails, on_answer

    def start(self) -> EngineInfo:
        self.starts += 1
        return EngineInfo("fake", 128)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for number, request in enumerate(requests):
            if number == self._dies_after and self._deaths:
                self._deaths -= 1
                raise EngineDiedError("the engine died")
            if self._on_answer is not None:
                self._on_answer(number)
            self.asked.append(request)
            n = len(request.prompt_token_ids)
            if number in self._fails:
                yield Completion(request.request_id, "", "error", n, 0, error="refused")
            else:
                yield Completion(request.request_id, f" answer {n} ", "stop", n, 3)

    def close(self) -> None:
        self.closes += 1

    def factory(self) -> Callable[[EngineSettings], BaseEngine]:
        return lambda settings: self

"""An engine that is asked before searches too: what it says is a function of the prompt's words."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineDiedError
from slm_vllm.types import Completion, EngineInfo, GenerationRequest


class StagedEngine(BaseEngine):
    """Answers the run's own questions with "answer".

    Args:
        margin: From the turn that shows question and passage to the margin; None: an error.
        writes: From the turn that asks for a text to that text; None: an error.
        dies_after: Raise `EngineDiedError` in place of every reply after so many.

    Attributes:
        weighed: Turns that were replied to with a margin, as `written` with a text.
        asked: Requests of the run's own.
    """

    def __init__(
        self,
        margin: Callable[[str], float | None] = lambda turn: 0.0,
        writes: Callable[[str], str | None] = lambda turn: "",
        dies_after: int | None = None,
    ) -> None:
        self._margin, self._writes, self._dies_after = margin, writes, dies_after
        self.weighed: list[str] = []
        self.written: list[str] = []
        self.asked: list[GenerationRequest] = []
        self.starts = 0
        self.settings: EngineSettings | None = None

    def factory(self) -> Callable[[EngineSettings], BaseEngine]:
        def make(settings: EngineSettings) -> BaseEngine:
            self.settings = settings
            return self

        return make

    def start(self) -> EngineInfo:
        self.starts += 1
        return EngineInfo("staged", 128)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for request in requests:
            if len(self.weighed) + len(self.written) + len(self.asked) == self._dies_after:
                raise EngineDiedError("the engine died")
            yield self._completion(request)

    def _completion(self, request: GenerationRequest) -> Completion:
        n, turn = len(request.prompt_token_ids), request.turns[-1]["content"]
        if request.auxiliary is None:
            self.asked.append(request)
            return Completion(request.request_id, "answer", "stop", n, 1)
        if request.auxiliary.either is None:
            self.written.append(turn)
            text = self._writes(turn)
            if text is None:
                return Completion.failed(request, "refused")
            return Completion(request.request_id, text, "stop", n, 5)
        self.weighed.append(turn)
        margin = self._margin(turn)
        if margin is None:
            return Completion.failed(request, "refused")
        return Completion(request.request_id, "Yes", "length", n, 1, margin=margin)

    def close(self) -> None:
        pass

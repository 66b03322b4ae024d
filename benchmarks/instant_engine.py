"""An engine that answers at once: what is measured is what hands out and collects."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.types import Completion, EngineInfo, GenerationRequest


class InstantEngine(BaseEngine):
    """Answers everything at once."""

    def __init__(self, settings: EngineSettings) -> None:
        """The settings are those of a real engine and not used."""

    def start(self) -> EngineInfo:
        return EngineInfo("instant", 1024)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for request in requests:
            yield Completion(request.request_id, "The answer is number 7.", "stop", 100, 7)

    def close(self) -> None:
        """Nothing to free."""

"""Cases to the judge's engine, replies back: from the cache where they were given before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace

from slm_vllm.errors import EngineDiedError, EngineError
from slm_vllm.judging.judge import Asked, Case, Judge, batches
from slm_vllm.prompting.answer import extract_answer
from slm_vllm.runs.asking import DRAIN_SECONDS
from slm_vllm.runs.services import Services
from slm_vllm.types import Completion, GenerationRequest

_SAY_SECONDS = 10.0

Record = Callable[[int, Case, Completion], None]
"""Takes a key, its case and the reply; its text is without thoughts."""


class Asking:
    """Asks cases until each has a reply or an error.

    Args:
        judge: Prepared.
        services: Console and signals of the command.
        label: What is judged, for the user.
        record: Called for each reply the moment it is there.
        counts: Where replies are counted: `asked`, `from_cache`.
    """

    def __init__(
        self,
        judge: Judge,
        services: Services,
        label: str,
        record: Record,
        counts: Counter[str],
    ) -> None:
        self._judge, self._services, self._label = judge, services, label
        self._record, self._counts = record, counts
        self._open: dict[int, Case] = {}
        self._waiting: dict[str, Asked] = {}
        self._refused: list[Asked] = []
        self._stopped = False

    def ask(self, cases: Mapping[int, Case]) -> None:
        """Asks cases by their keys.

        Raises:
            EngineError: The engine cannot be started, died twice, or left cases out.
            Interrupted: A signal came; what was replied is recorded.
        """
        self._open = dict(cases)
        self._take_from_cache()
        if not self._open:
            return
        engine, signals = self._judge.host.engine, self._services.signals
        signals.drain(True, self._stop)
        try:
            self._stream()
        except EngineDiedError as error:
            signals.drain(False)
            self._judge.host.restart(error)
            signals.drain(True, self._stop)
            self._stream()
        signals.drain(False)
        if self._open:
            raise EngineError(
                f"{self._label}: the engine {type(engine).__name__} ended without a reply to "
                f"{len(self._open)} of {len(cases)} requests. The same command asks them"
            )

    def _take_from_cache(self) -> None:
        cache = self._judge.cache
        for batch in batches(self._open.items()):
            requests = [
                GenerationRequest(f"{key:016x}", self._cached_as(case)) for key, case in batch
            ]
            for completion in cache.find(requests):
                key = int(completion.request_id, 16)
                self._record(key, self._open.pop(key), completion)
                self._counts["from_cache"] += 1

    def _cached_as(self, case: Case) -> list[int]:
        """What stands for the tokens of its prompt, which a chat server alone knows."""
        return list(self._judge.content(case))

    def _stream(self) -> None:
        self._waiting.clear()  # what was in flight in an engine that died
        self._refused.clear()
        total, begun, said = len(self._open), time.monotonic(), time.monotonic()
        stop_at: float | None = None
        with closing(self._judge.host.engine.stream(self._requests())) as completions:
            for completion in completions:
                self._take(completion)
                now = time.monotonic()
                if now - said >= _SAY_SECONDS:
                    said, done = now, total - len(self._open)
                    rate = f"{done / (now - begun):.1f}"
                    self._services.console.say(f"{self._label}: {done}/{total}  {rate} replies/s")
                if self._services.signals.received is None:
                    continue
                if stop_at is None:
                    stop_at = now + DRAIN_SECONDS
                    self._services.console.say("Stopping: finishing what is in flight ...")
                if now > stop_at:
                    break
        self._take_refused()

    def _requests(self) -> Iterator[GenerationRequest]:
        """Runs in the engine's thread, so it records nothing itself."""
        for asked in self._judge.requests(list(self._open.items())):
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
        case = self._open.pop(key)
        opened = None if completion.is_whole else asked.opened
        reply = replace(completion, text=extract_answer(completion.text, opened).text)
        self._judge.cache.add(self._cached_as(case), reply)
        self._record(key, case, reply)
        self._counts["asked"] += 1
        self._take_refused()

    def _take_refused(self) -> None:
        while self._refused:
            asked = self._refused.pop()
            key = int(asked.request.request_id, 16)
            failed = Completion(asked.request.request_id, "", "error", 0, 0, error=asked.error)
            self._record(key, self._open.pop(key), failed)

    def _stop(self) -> None:
        self._stopped = True
        self._judge.host.engine.wind_down()

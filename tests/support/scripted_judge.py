"""An engine that grades by a function, as a model would: by the words of its prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineDiedError
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

_RULE = re.compile(r"^([ABC]): (correct|incorrect|not attempted)\.", re.MULTILINE)
_TEXT = r'("(?:[^"\\]|\\.)*")'

Grader = Callable[[str, str], str]
"""From question and answer to what it says: one of the grades, or any other text."""


class ScriptedJudge(BaseEngine):
    """Replies with the letter that the prompt has for a grade.

    Args:
        grade: The grader.
        dies_after: Raise `EngineDiedError` instead of this reply, once.
        fails: Whether every request fails.
    """

    def __init__(self, grade: Grader, dies_after: int | None = None, fails: bool = False) -> None:
        self._grade, self._dies_after, self._fails = grade, dies_after, fails
        self.prompts: list[str] = []
        self.starts = 0
        self.settings: EngineSettings | None = None

    def factory(self, settings: EngineSettings) -> BaseEngine:
        self.settings = settings
        return self

    def start(self) -> EngineInfo:
        self.starts += 1
        return EngineInfo("scripted", 4096)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for request in requests:
            if len(self.prompts) == self._dies_after:
                self._dies_after = None
                raise EngineDiedError("the engine died")
            turn = request.turns[-1]["content"]
            self.prompts.append(turn)
            if self._fails:
                yield Completion.failed(request, "refused")
            else:
                yield Completion(request.request_id, self._reply(turn), "stop", 9, 1)

    def _reply(self, turn: str) -> str:
        question, answer = case_of(turn)
        said = self._grade(question, answer)
        letters = {name.replace(" ", "_"): letter for letter, name in _RULE.findall(turn)}
        return letters.get(said, said)

    def close(self) -> None:
        pass


def case_of(turn: str) -> tuple[str, str]:
    """Question and answer of the case that a turn ends with."""
    case = turn[turn.rindex("\nQuestion: ") :]
    found = re.fullmatch(
        rf"\nQuestion: {_TEXT}\nExpected answer: .*\nAnswer: {_TEXT}\nGrade:", case
    )
    assert found is not None, case
    return json.loads(found[1]), json.loads(found[2])

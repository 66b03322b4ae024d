"""The answer inside a completion."""

from __future__ import annotations

from dataclasses import dataclass

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class ExtractedAnswer:
    """What is scored.

    Attributes:
        text: The answer without thinking blocks and outer blanks.
        unterminated_thinking: The completion ended inside a thinking block: there is no answer,
            and more `generation.max_new_tokens` may give one.
    """

    text: str
    unterminated_thinking: bool = False


def extract_answer(completion: str) -> ExtractedAnswer:
    """Takes the answer out of a completion.

    A chat template may have opened the block in the prompt, so all up to the last closing tag is
    thinking whether or not the opening tag is part of the completion.
    """
    rest = completion.rpartition(_CLOSE)[2]
    if _OPEN in rest:
        return ExtractedAnswer(rest.partition(_OPEN)[0].strip(), unterminated_thinking=True)
    return ExtractedAnswer(rest.strip())

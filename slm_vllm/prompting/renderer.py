"""Prompts as token ids, in batches, each within the context budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.types import Passage, RenderedPrompt


@dataclass(frozen=True, slots=True)
class PromptInput:
    """A question and its passages, best first."""

    question: str
    passages: tuple[Passage, ...] = ()


class PromptRenderer:
    """Renders and tokenizes prompts so that each leaves room for the answer.

    Args:
        template: The text around the question.
        tokenizer: A fast transformers tokenizer.
        max_prompt_tokens: The context budget: longest prompt the engine takes, answer excluded.
    """

    def __init__(self, template: PromptTemplate, tokenizer: Any, max_prompt_tokens: int) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._budget = max_prompt_tokens

    def render(self, inputs: Sequence[PromptInput]) -> list[RenderedPrompt]:
        """Token ids of each prompt.

        One over the budget loses its lowest-ranked passages first, then the end of the last one;
        a question is never cut: where it alone is over the budget, the prompt has an error.
        """
        if not inputs:
            return []
        turns = [self._template.user_turn(item.question, item.passages) for item in inputs]
        tokenized = self._tokenize([self._template.surround(turn) for turn in turns])
        return [
            RenderedPrompt(ids, len(item.passages), user_turn=turn)
            if len(ids) <= self._budget
            else self._fit(item)
            for item, turn, ids in zip(inputs, turns, tokenized, strict=True)
        ]

    def turns(self, prompt: RenderedPrompt) -> list[dict[str, str]]:
        """A rendered prompt as a chat."""
        return self._template.turns(prompt.user_turn)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        # A chat template writes its special tokens itself.
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=not self._template.is_chat,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return list(encoded["input_ids"])

    def _fit(self, item: PromptInput) -> RenderedPrompt:
        for kept in range(len(item.passages) - 1, 0, -1):
            prompt = self._try(item, item.passages[:kept])
            if prompt is not None:
                return replace(prompt, truncated=True)
        closed_book = self._length(item, ())
        if closed_book > self._budget:
            return RenderedPrompt(
                [],
                error=f"the question alone makes a prompt of {closed_book} tokens; "
                f"the model has room for {self._budget}",
            )
        if item.passages:
            prompt = self._cut_to_fit(item, item.passages[0])
            if prompt is not None:
                return prompt
        prompt = self._try(item, ())
        assert prompt is not None
        return replace(prompt, truncated=bool(item.passages))

    def _cut_to_fit(self, item: PromptInput, passage: Passage) -> RenderedPrompt | None:
        """The prompt with as much of the passage's beginning as fits; None for none of it."""
        offsets = self._tokenizer(
            passage.text, add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        empty = replace(passage, text="")
        room = min(self._budget - self._length(item, (empty,)), len(offsets))
        # Tokens merge differently next to other text, so the sum can be off by a few.
        while room > 0:
            cut = replace(passage, text=passage.text[: offsets[room - 1][1]])
            prompt = self._prompt(item, (cut,))
            over = len(prompt.token_ids) - self._budget
            if over <= 0:
                return replace(prompt, truncated=True)
            room -= over
        return None

    def _try(self, item: PromptInput, passages: tuple[Passage, ...]) -> RenderedPrompt | None:
        prompt = self._prompt(item, passages)
        return prompt if len(prompt.token_ids) <= self._budget else None

    def _length(self, item: PromptInput, passages: tuple[Passage, ...]) -> int:
        return len(self._prompt(item, passages).token_ids)

    def _prompt(self, item: PromptInput, passages: tuple[Passage, ...]) -> RenderedPrompt:
        turn = self._template.user_turn(item.question, passages)
        ids = self._tokenize([self._template.surround(turn)])[0]
        return RenderedPrompt(ids, len(passages), user_turn=turn)

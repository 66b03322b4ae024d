"""Prompts as token ids, in batches, each within the context budget.

Nothing is tokenized far beyond the budget: of a text that is much too long a beginning is enough
to know that it is.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from slm_vllm.errors import EngineError, reason_of
from slm_vllm.prompting.encoding import BatchEncoder
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.types import Passage, RenderedPrompt

# A beginning of so many characters for each token of the budget is over it in most languages.
_CHARACTERS_PER_TOKEN = 5
_GROWTH = 2
_SAMPLE_CHARACTERS = 2_000
# Where a text is cut off, its last tokens are others than in the whole.
_CUT_TOKENS = 32
# So that rendering gives way (to a signal, to the engine) several times a second.
_BATCH_CHARACTERS = 500_000


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
        # A text of no more characters is tokenized whole.
        self._short = (max_prompt_tokens + 2 * _CUT_TOKENS) * _CHARACTERS_PER_TOKEN
        # A chat template writes its special tokens itself.
        self._encoder = BatchEncoder(tokenizer, add_special_tokens=not template.is_chat)

    def render(self, inputs: Sequence[PromptInput]) -> list[RenderedPrompt]:
        """Token ids of each prompt.

        One over the budget loses its lowest-ranked passages first, then the end of the last one;
        a question is never cut: where it alone is over the budget, the prompt has an error.
        """
        return list(self.stream(inputs))

    def stream(self, inputs: Sequence[PromptInput]) -> Iterator[RenderedPrompt]:
        """The prompts of `render`, a few at a time."""
        batch: list[_Draft] = []
        size = 0
        for item in inputs:
            draft = self._draft(item)
            if batch and size + len(draft.text) > _BATCH_CHARACTERS:
                yield from self._render(batch)
                batch, size = [], 0
            batch.append(draft)
            size += len(draft.text)
        yield from self._render(batch)

    def longest(self, inputs: Sequence[PromptInput]) -> int:
        """Tokens of the longest prompt as it is; all that are over the budget count as one over."""
        lengths = [0]
        for item in inputs:
            ids = self._tokenize_within(self._draft(item).text)
            lengths.append(self._budget + 1 if ids is None else len(ids))
        return max(lengths)

    def _draft(self, item: PromptInput) -> _Draft:
        passages = [self._beginning(passage) for passage in item.passages]
        blocks = self._template.blocks(passages)
        turn = self._template.user_turn(item.question, blocks)
        return _Draft(item.question, passages, blocks, turn, self._template.surround(turn))

    def _beginning(self, passage: Passage) -> Passage:
        """The passage without what no prompt of this budget has room for.

        What stays is over the budget by itself, so it is dropped or cut where the whole would be.
        """
        for size in self._sizes(passage.text):
            beginning = replace(passage, text=passage.text[:size])
            ids = self._tokenize(self._template.blocks([beginning]))[0]
            if len(ids) > self._budget + 2 * _CUT_TOKENS:
                return beginning
        return passage

    def _render(self, drafts: Sequence[_Draft]) -> Iterator[RenderedPrompt]:
        short = [draft.text for draft in drafts if len(draft.text) <= self._short]
        tokenized = iter(self._tokenize(short))
        for draft in drafts:
            is_short = len(draft.text) <= self._short
            ids = next(tokenized) if is_short else self._tokenize_within(draft.text)
            if ids is not None and len(ids) <= self._budget:
                yield self._prompt(draft.turn, ids, len(draft.blocks))
            else:
                yield self._fit(draft)

    def _fit(self, draft: _Draft) -> RenderedPrompt:
        """The prompt with as many whole passages as fit, or with a part of the first."""
        fits, too_many = 0, len(draft.blocks)
        best: RenderedPrompt | None = None
        kept, step = self._guess(draft) if draft.blocks else 0, 1
        while too_many - fits > 1:
            if not fits < kept < too_many:
                kept = (fits + too_many) // 2
            prompt = self._try(draft.question, draft.blocks[:kept])
            if prompt is None:
                too_many, kept = kept, kept - step
            else:
                best, fits, kept = prompt, kept, kept + step
            step *= 2
        if best is not None:
            return replace(best, truncated=True)
        closed_book = self._try(draft.question, ())
        if closed_book is None:
            return RenderedPrompt([], error=self._too_long(draft.question))
        if not draft.blocks:
            return closed_book
        cut = self._cut_to_fit(draft.question, draft.passages[0])
        return replace(cut or closed_book, truncated=True)

    def _guess(self, draft: _Draft) -> int:
        """About how many passages fit, by the number of tokens at the beginning of the prompt."""
        sample = draft.text[:_SAMPLE_CHARACTERS]
        tokens = max(1, len(self._tokenize([sample])[0]))
        room = self._budget * len(sample) // tokens - (
            len(draft.text) - sum(map(len, draft.blocks))
        )
        ends = list(accumulate(map(len, draft.blocks)))
        return bisect(ends, room)

    def _cut_to_fit(self, question: str, passage: Passage) -> RenderedPrompt | None:
        """The prompt with as much of the passage's beginning as fits; None for none of it."""
        empty = self._try(question, self._template.blocks([replace(passage, text="")]))
        if empty is None:
            return None
        text = passage.text
        offsets = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        room = min(self._budget - len(empty.token_ids), len(offsets))
        # Tokens merge differently next to other text, so the sum can be off by a few.
        while room > 0:
            cut = replace(passage, text=text[: offsets[room - 1][1]])
            turn = self._template.user_turn(question, self._template.blocks([cut]))
            ids = self._tokenize([self._template.surround(turn)])[0]
            over = len(ids) - self._budget
            if over <= 0:
                return replace(self._prompt(turn, ids, 1), cut=len(cut.text))
            room -= over
        return None

    def _try(self, question: str, blocks: Sequence[str]) -> RenderedPrompt | None:
        turn = self._template.user_turn(question, blocks)
        ids = self._tokenize_within(self._template.surround(turn))
        return None if ids is None else self._prompt(turn, ids, len(blocks))

    def _prompt(self, turn: str, ids: list[int], n_passages: int) -> RenderedPrompt:
        return RenderedPrompt(
            ids, n_passages, user_turn=turn, opened=self._template.opened_block(turn)
        )

    def _too_long(self, question: str) -> str:
        text = self._template.surround(self._template.user_turn(question, ()))
        size = next(self._sizes(text), None)
        tokens = len(self._tokenize([text[:size]])[0])
        return (
            f"the question alone makes a prompt of {'more than ' * (size is not None)}{tokens} "
            f"tokens; the model has room for {self._budget}"
        )

    def _tokenize_within(self, text: str) -> list[int] | None:
        """Token ids of a text, None where they are over the budget."""
        for size in self._sizes(text):
            if len(self._tokenize([text[:size]])[0]) > self._budget + _CUT_TOKENS:
                return None
        ids = self._tokenize([text])[0]
        return ids if len(ids) <= self._budget else None

    def _sizes(self, text: str) -> Iterator[int]:
        """Lengths of its beginnings that may be over the budget already, shortest first.

        There are none for a text that is short enough to be tokenized whole.
        """
        size = self._short
        while size < len(text):
            yield size
            size *= _GROWTH

    def turns(self, prompt: RenderedPrompt) -> list[dict[str, str]]:
        """A rendered prompt as a chat."""
        return self._template.turns(prompt.user_turn)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        try:
            return self._encoder.ids(texts)
        except Exception as error:  # such as a vocabulary without a token for unknown words
            raise EngineError(
                f"the model's tokenizer fails on a prompt: {reason_of(error)}"
            ) from error


@dataclass(slots=True)
class _Draft:
    """A prompt with all of its passages, before it is known whether they fit."""

    question: str
    passages: list[Passage]
    blocks: list[str]
    turn: str
    text: str

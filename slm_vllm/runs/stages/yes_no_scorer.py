"""`retriever.reranker.model=evaluated`: scores passages by the model's Yes or No.

The score is log P(Yes) - log P(No) as the first token of the reply, as in "Is this passage
relevant?" of Liang et al., "Holistic evaluation of language models" (2022), and Qwen3-Reranker.
The question stands before the passage: its prompts have the instruction and the question in
common, which the engine's prefix cache computes once. The other way round they would share what
rarely occurs twice, the passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slm_vllm.config.schema import PromptConfig
from slm_vllm.errors import ConfigError
from slm_vllm.prompting.renderer import PromptInput
from slm_vllm.retrieval.reranker import Pair, PairScorer
from slm_vllm.runs.auxiliary import Asked
from slm_vllm.runs.stages.stage import Stage, StagePrompt, stage_template
from slm_vllm.types import AuxiliaryTask, Completion

_TURN = """Does the passage answer the question? Reply with one word: Yes or No.

Question: {question}

Passage: {context}

Does the passage answer the question? Yes or No:"""
# A model says the same with another case, and behind a blank where the prompt ends without one.
_FORMS = ("{}", " {}")


def yes_no_prompt(prompt: PromptConfig, tokenizer: Any) -> StagePrompt:
    """How the model is asked about a passage.

    Args:
        prompt: The `prompt` section.
        tokenizer: A fast transformers tokenizer.

    Raises:
        ConfigError: The first token of a reply is neither Yes nor No.
    """
    words = PromptConfig(
        name="reranking", context_template=_TURN, passage_template="{title}\n{text}"
    )
    template = stage_template(prompt, words, tokenizer)
    if template.opened_block("") is not None:
        raise ConfigError(
            "retriever.reranker.model=evaluated: the model's chat template lets it think first, so "
            "its first token is neither Yes nor No. Choose a cross-encoder"
        )
    either = _tokens(tokenizer, "Yes"), _tokens(tokenizer, "No")
    if not (either[0] and either[1]) or set(either[0]) & set(either[1]):
        raise ConfigError(
            "retriever.reranker.model=evaluated: the model's tokenizer has no tokens for Yes and "
            "No. Choose a cross-encoder"
        )
    return StagePrompt(template, AuxiliaryTask(either=either), tokenizer)


class YesNoScorer(Stage[Pair], PairScorer):
    """Has the evaluated model say of each passage whether it answers the question."""

    def shown(self, item: Pair) -> PromptInput:
        """See `Stage.shown`."""
        question, passage = item
        return PromptInput(question, (passage,))

    def reply(self, completion: Completion, asked: Asked) -> Completion:
        """The margin as text."""
        if completion.error is not None:
            return completion
        if completion.margin is None:
            reason = "the engine does not tell how probable Yes and No are"
            return replace(completion, text="", finish_reason="error", error=reason)
        return replace(completion, text=repr(completion.margin))

    def scores(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """See `PairScorer.scores`."""
        replies = self.replies(pairs)
        return np.array([-np.inf if r is None else float(r) for r in replies], np.float32)

    def close(self) -> None:
        """Nothing: the engine and the cache are the run's."""


def _tokens(tokenizer: Any, word: str) -> tuple[int, ...]:
    """The tokens that are a form of the word; else the one that it begins with."""
    forms = [form.format(w) for form in _FORMS for w in (word, word.lower())]
    encoded = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
    known = [ids for ids in encoded if ids and tokenizer.unk_token_id not in ids]
    whole = {ids[0] for ids in known if len(ids) == 1}
    return tuple(sorted(whole)) or tuple(ids[0] for ids in known[:1])

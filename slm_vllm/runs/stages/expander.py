"""`retriever.expansion`: the evaluated model writes a text to search with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from slm_vllm.config.retriever_stages import ExpansionConfig
from slm_vllm.config.schema import PromptConfig
from slm_vllm.prompting.answer import extract_answer
from slm_vllm.prompting.renderer import PromptInput
from slm_vllm.runs.auxiliary import Asked
from slm_vllm.runs.stages.stage import Stage, StagePrompt, stage_template
from slm_vllm.types import AuxiliaryTask, Completion


def expansion_prompt(config: ExpansionConfig, prompt: PromptConfig, tokenizer: Any) -> StagePrompt:
    """How the model is asked to write.

    Args:
        config: The `retriever.expansion` section.
        prompt: The `prompt` section.
        tokenizer: A fast transformers tokenizer.
    """
    words = PromptConfig(name="expansion", question_template=config.prompt)
    template = stage_template(prompt, words, tokenizer)
    return StagePrompt(template, AuxiliaryTask(config.max_new_tokens), tokenizer)


class Expander(Stage[str]):
    """Has the evaluated model write a text to each question."""

    def shown(self, item: str) -> PromptInput:
        """See `Stage.shown`."""
        return PromptInput(item)

    def reply(self, completion: Completion, asked: Asked) -> Completion:
        """The text without the thoughts before it, in one line."""
        opened = None if completion.is_whole else asked.opened
        text = extract_answer(completion.text, opened).text
        return replace(completion, text=" ".join(text.split()))

    def texts(self, questions: Sequence[str]) -> list[str]:
        """What was written to each; "" where the request failed."""
        return [text or "" for text in self.replies(questions)]

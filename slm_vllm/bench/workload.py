"""The prompts of a measurement, as token ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from slm_vllm.config.schema import Config
from slm_vllm.datasets.base import limited_scan
from slm_vllm.datasets.registry import open_configured
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.prompting.renderer import PromptInput, PromptRenderer
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.runs.contexts import context_of


def made_up_prompts(n: int, length: int, vocabulary: int, seed: int) -> list[list[int]]:
    """Random prompts that share no prefix.

    Args:
        n: How many.
        length: Tokens of each.
        vocabulary: Token ids below it are used; the lowest, often special ones, are not.
        seed: Makes them the same on every machine.
    """
    draw = np.random.default_rng(seed)
    drawn: list[list[int]] = draw.integers(vocabulary // 4, vocabulary, (n, length)).tolist()
    return drawn


def dataset_prompts(config: Config, tokenizer: Any, n: int, budget: int) -> list[list[int]]:
    """The first prompts of a dataset, as a run would ask them.

    Args:
        config: Says dataset, prompt and mode.
        tokenizer: The model's.
        n: How many at most.
        budget: Longest prompt in tokens.

    Raises:
        ConfigError: The mode needs a search.
        DataError: No row can be asked.
    """
    context = context_of(config)
    if context.searches:
        raise ConfigError(
            "bench throughput makes its prompts without searching. Use experiment_mode=oracle or "
            "experiment_mode=no_context"
        )
    renderer = PromptRenderer(PromptTemplate(config.prompt, tokenizer), tokenizer, budget)
    prompts: list[list[int]] = []
    for frame in limited_scan(open_configured(config.dataset), n):
        asked = [
            PromptInput(question, tuple(found.passage for found in row.passages))
            for question, row in zip(frame["question"], context(config).rows(frame), strict=True)
        ]
        prompts += [prompt.token_ids for prompt in renderer.render(asked) if prompt.error is None]
    if not prompts:
        raise DataError(f"{config.dataset.path}: no question fits the model's context")
    return prompts

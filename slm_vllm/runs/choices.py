"""Whether everything that a configuration names by a word can be had."""

from __future__ import annotations

from slm_vllm.config.schema import Config
from slm_vllm.datasets.registry import dataset_class
from slm_vllm.engines.registry import engine_class
from slm_vllm.retrieval.registry import validate_options
from slm_vllm.runs.contexts import context_of


def check_choices(config: Config) -> None:
    """Finds the class of each choice, and checks the retriever's options; imports nothing heavy.

    Raises:
        ConfigError: There is none of that name.
    """
    context_of(config)
    engine_class(config.engine.name)
    if config.dataset.kind is not None:
        dataset_class(config.dataset.kind)
    validate_options(config.retriever)

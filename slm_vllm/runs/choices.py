"""Whether everything that a configuration names by a word can be had."""

from __future__ import annotations

from slm_vllm.config.schema import Config
from slm_vllm.datasets.registry import check_dataset
from slm_vllm.engines.registry import engine_class
from slm_vllm.retrieval.registry import validate_options
from slm_vllm.runs.contexts import context_of
from slm_vllm.runs.until_decided import find_baseline
from slm_vllm.scoring.metrics import load_added
from slm_vllm.tracking.registry import check_tracker


def check_choices(config: Config) -> None:
    """Finds the class of each choice, and checks options; imports nothing heavy.

    Raises:
        ConfigError: There is none of that name, or one of the user's own cannot be used.
    """
    load_added()
    context_of(config)
    engine_class(config.engine.name)
    check_dataset(config.dataset)
    validate_options(config.retriever)
    check_tracker(config.tracking.tracker)
    if config.experiment.against is not None:
        find_baseline(config.experiment)

"""Checks that everything a configuration names is available."""

from __future__ import annotations

from slm_vllm.config.schema import Config
from slm_vllm.datasets.registry import check_dataset
from slm_vllm.engines.registry import engine_class
from slm_vllm.errors import ConfigError
from slm_vllm.retrieval.registry import validate_options
from slm_vllm.retrieval.trec_run import TrecRunRetriever
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
    _check_stages(config)
    check_tracker(config.tracking.tracker)
    if config.experiment.against is not None:
        find_baseline(config.experiment)


def _check_stages(config: Config) -> None:
    reranker, expansion = config.retriever.reranker, config.retriever.expansion
    if not context_of(config).searches:
        return
    answered = engine_class(config.engine.name).auxiliary
    if reranker is not None and reranker.is_evaluated and "margin" not in answered:
        raise ConfigError(
            "retriever.reranker.model=evaluated needs an engine that tells how probable a word is: "
            f"engine.name={config.engine.name} does not. Use vllm or ray, or a cross-encoder as "
            "reranker"
        )
    if expansion is not None and "text" not in answered:
        raise ConfigError(
            "retriever.expansion needs an engine that is asked for more than answers: "
            f"engine.name={config.engine.name} is not (`BaseEngine.auxiliary`)"
        )
    if expansion is not None and config.retriever.kind == TrecRunRetriever.kind:
        raise ConfigError(
            "retriever.expansion: a run file knows questions by their ids and not by their words. "
            "Leave retriever.expansion out, or choose another retriever"
        )

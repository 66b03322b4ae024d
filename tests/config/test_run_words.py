"""The words that compose the runs of a command."""

from __future__ import annotations

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.config.run_words import run_words
from slm_vllm.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "key"),
    [("samples", "experiment.max_samples"), ("gpus_per_replica", "engine.gpus_per_replica")],
)
def test_zero_is_refused_and_not_taken_for_nothing_said(setting: str, key: str) -> None:
    words = run_words({setting: 0}, [], overrides=["engine.name=ray", "hardware=cpu"])[0]
    assert f"{key}=0" in words
    with pytest.raises(ConfigError, match=key):
        compose_config(words)


def test_what_is_not_given_says_nothing() -> None:
    assert run_words({"samples": None, "strict": False, "base_url": ()}, []) == [[]]

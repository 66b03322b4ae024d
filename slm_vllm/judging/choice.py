"""The configuration of a judge, from what a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slm_vllm.config.compose import compose_config
from slm_vllm.config.run_words import run_words
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError

# Whatever the user's own configuration has for answers. One letter, or a few words around it where
# the engine cannot constrain.
_GENERATION = {
    "max_new_tokens": 16,
    "temperature": 0.0,
    "repetition_penalty": 1.0,
    "n": 1,
    "logprobs": "false",
}
# The path of a model that only its servers know; no folder of a user is called so.
_NO_FILES = "(served)"


def judge_config(
    model: str | None,
    base_url: Sequence[str] = (),
    *,
    api_key_env: str | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
) -> Config:
    """The configuration of a judge; what it says of datasets, modes and retrieval is not used.

    Args:
        model: Model configuration, folder or repository; None: whatever the servers serve.
        base_url: Servers to ask instead of loading the model.
        api_key_env: Environment variable with their key.
        overrides: Further words of the form `key=value`, which win.
        config_dir: A folder with configuration groups of the user's.

    Raises:
        ConfigError: Neither is given, or something is not valid.
    """
    if model is None and not base_url:
        raise ConfigError(
            "name the judge: --model MODEL (a configuration, folder or repository), or --base-url "
            "URL of a server. It should be a stronger model than those it judges"
        )
    words = [f"generation.{name}={value}" for name, value in _GENERATION.items()]
    if model is None:
        words += ["model=custom", "model.name=served", f"model.path={_NO_FILES}"]
        words += ["engine.endpoint=chat"]
    settings = {
        "model": model,
        "engine": "openai" if base_url else None,
        "base_url": tuple(base_url),
        "api_key_env": api_key_env,
    }
    (given,) = run_words(settings, [], overrides=[*words, *overrides], config_dir=config_dir)
    return compose_config(given, config_dir)


def has_files(config: Config) -> bool:
    """Whether the files of a judge's model are here.

    Of a server that answers chats nothing is needed but its address.
    """
    return config.model.path != _NO_FILES

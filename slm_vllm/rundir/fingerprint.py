"""Fingerprints that decide whether an earlier answer is still valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.config.schema import Config
from slm_vllm.json_text import encode_bytes

# Raised when prompts, keys or answers of the same configuration change their meaning.
FORMAT_VERSION = 1

# What these contexts' prompts cannot depend on is left out of their hashes. Of a context that is
# not named here everything counts: at worst an answer is asked for again.
_CLOSED_BOOK = "none"
_WITHOUT_SEARCH = (_CLOSED_BOOK, "oracle")


def digest(content: Any) -> str:
    """SHA-256 of anything JSON can hold, independent of the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def config_hash(config: Config) -> str:
    """What makes two runs of one folder the same run."""
    return digest(answer_settings(config))


def answer_settings(config: Config) -> dict[str, Any]:
    """The settings that answers depend on.

    Left out is what does not change any single answer: names and places, the number of rows, how
    fast the engine is set up, which tracker listens.
    """
    content: dict[str, Any] = {
        "model": config.model.model_dump(
            exclude={"name", "max_model_len", "gradient_checkpointing"}
        ),
        "dataset": config.dataset.model_dump(exclude={"name"}),
        "context": config.experiment_mode.context,
        "prompt": _prompt(config),
        "generation": config.generation.changes_answers(),
        "format": FORMAT_VERSION,
    }
    if may_search(config):
        content["retriever"] = config.retriever.settings()
        if config.corpus is not None:
            content["corpus"] = config.corpus.model_dump(exclude={"name"})
    content |= config.engine.changes_answers()
    if config.hardware.deterministic:
        content["deterministic"] = True
    if config.generation.temperature > 0:
        content["seed"] = config.experiment.seed
    return content


def may_search(config: Config) -> bool:
    """Whether answers may depend on a search: not in the modes that are known to need none."""
    return config.experiment_mode.context not in _WITHOUT_SEARCH


def prompt_hash(config: Config, day: date | None) -> str:
    """What makes the prompts of two runs alike.

    Args:
        config: The run's configuration.
        day: The day that the model's chat template writes, None where it writes none.
    """
    return digest(_prompt(config) | ({"date": day.isoformat()} if day else {}))


def _prompt(config: Config) -> dict[str, Any]:
    """The prompt section without what is known only together with a chat template.

    A key that earlier versions did not know is left out where it is not set.
    """
    content = config.prompt.model_dump(exclude={"name", "date"})
    if content["chat_template"] is None:
        del content["chat_template"]
    return content


def answer_fingerprint(
    config: Config,
    model_revision: str,
    dtype: str,
    context_limit: int,
    index: str | None,
    prompt_state: Sequence[str] = (),
) -> str:
    """Everything an answer depends on beside its own row.

    Args:
        config: The run's configuration.
        model_revision: The commit or content hash of the weights.
        dtype: The data type they are run in.
        context_limit: Longest prompt plus answer the model may take: a smaller one cuts passages.
        index: Fingerprint of the retrieval index, if there is one.
        prompt_state: See `PromptTemplate.state`.
    """
    facts = answer_facts(config, model_revision, dtype, context_limit, index)
    return digest([config_hash(config), *facts.values(), *prompt_state])


def answer_facts(
    config: Config, model_revision: str, dtype: str, context_limit: int, index: str | None
) -> dict[str, Any]:
    """What an answer depends on beside its row, its configuration and the prompt's template.

    See `answer_fingerprint`; what the configuration rules out is None.
    """
    return {
        "model": model_revision,
        "dtype": dtype if config.engine.weights_are_known else "served",
        "context_limit": context_limit if config.experiment_mode.context != _CLOSED_BOOK else None,
        "index": index,
    }


def row_keys(
    frame: pl.DataFrame, fingerprint: str, *, with_contexts: bool
) -> npt.NDArray[np.uint64]:
    """A 64-bit key for each row of a canonical frame.

    Two rows of a million share a key with a probability of 3e-8.

    Args:
        frame: Canonical rows.
        fingerprint: See `answer_fingerprint`.
        with_contexts: Whether the row's own contexts are part of its prompt.
    """
    columns = ["question_id", "question", "answers"] + (["contexts"] if with_contexts else [])
    keys = np.empty(frame.height, dtype=np.uint64)
    start = hashlib.blake2b(fingerprint.encode(), digest_size=8)
    for position, row in enumerate(frame.select(columns).iter_rows()):
        row_hash = start.copy()
        row_hash.update(encode_bytes(row))
        keys[position] = int.from_bytes(row_hash.digest(), "big")
    return keys

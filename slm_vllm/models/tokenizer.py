"""The tokenizer of a model folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm_vllm.errors import EngineError
from slm_vllm.gc_control import frozen_imports


def import_ahead() -> None:
    """Imports what `load_tokenizer` needs, which takes seconds; it reports what goes wrong."""
    with contextlib.suppress(Exception), frozen_imports(), without_sklearn():
        from transformers import AutoTokenizer  # noqa: F401


@contextlib.contextmanager
def without_sklearn() -> Iterator[None]:
    """Has transformers, imported in the block, take scikit-learn for missing.

    It imports it, and scipy and pandas with it, for one function of a way to generate that is not
    used here: 0.7 s of the start.
    """
    try:
        from transformers import utils
    except ImportError:  # said by whoever needs it
        yield
        return
    is_there = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False
    try:
        yield
    finally:
        utils.is_sklearn_available = is_there


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Any:
    """Loads the fast tokenizer.

    Raises:
        EngineError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except BaseException as error:  # the libraries below have types of their own
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EngineError(f"{path}: its tokenizer cannot be loaded: {reason}") from error
    if not tokenizer.is_fast:
        raise EngineError(f"{path}: has no fast tokenizer (tokenizer.json), which is needed")
    return tokenizer

"""The tokenizer of a model folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from slm_vllm.errors import EngineError


def import_ahead() -> None:
    """Imports what `load_tokenizer` needs, which takes seconds; it reports what goes wrong."""
    with contextlib.suppress(Exception):
        from transformers import AutoTokenizer  # noqa: F401


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

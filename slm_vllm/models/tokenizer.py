"""The tokenizer of a model folder."""

from __future__ import annotations

import contextlib
import importlib.abc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_vllm.errors import EngineError, first_line
from slm_vllm.gc_control import frozen_imports


def import_ahead() -> None:
    """Imports what `load_tokenizer` needs, which takes seconds; it reports what goes wrong."""
    with contextlib.suppress(Exception), frozen_imports(), without_unused_packages():
        from transformers import AutoTokenizer  # noqa: F401


@contextlib.contextmanager
def without_unused_packages() -> Iterator[None]:
    """Has transformers and vLLM, imported in the block, take scikit-learn and scipy for missing.

    They import them, and pandas too, for sound, detection of objects in pictures and one way to
    generate, none of which is used here: 1.3 s of the start. Other threads find them.
    """
    thread = threading.get_ident()

    def hidden(is_there: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: threading.get_ident() != thread and is_there()

    finder = _Hidden("scipy.signal", thread)
    sys.meta_path.insert(0, finder)
    with contextlib.ExitStack() as undo:
        undo.callback(sys.meta_path.remove, finder)
        with contextlib.suppress(ImportError):  # said by whoever needs it
            from transformers import utils

            for name in ("is_sklearn_available", "is_scipy_available"):
                is_there = getattr(utils, name)
                undo.callback(setattr, utils, name, is_there)
                setattr(utils, name, hidden(is_there))
        yield


class _Hidden(importlib.abc.MetaPathFinder):
    """Has one thread find no module of a name."""

    def __init__(self, name: str, thread: int) -> None:
        self._name, self._thread = name, thread

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)


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
        raise EngineError(f"{path}: its tokenizer cannot be loaded: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise EngineError(f"{path}: has no fast tokenizer (tokenizer.json), which is needed")
    return tokenizer

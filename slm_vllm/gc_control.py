"""Keeps the garbage collector away from packages and models, which live as long as the process.

They hold a million objects. A full collection over them takes half a second, and Python, torch and
vLLM start many: while packages are imported, while a model is loaded, every few hundred questions.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_imports() -> Iterator[None]:
    """Collects nothing while the block imports; freezes what exists at its end until `collect`."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        gc.freeze()


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Excludes what exists now from the collections that run inside the block."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def skipped_collections() -> Iterator[None]:
    """Has `gc.collect` and `gc.unfreeze` do nothing while the block runs, whoever calls them."""
    before = gc.collect, gc.unfreeze
    gc.collect, gc.unfreeze = (lambda *_: 0), (lambda: None)  # type: ignore[assignment]
    try:
        yield
    finally:
        gc.collect, gc.unfreeze = before  # type: ignore[assignment]


def collect() -> None:
    """Runs a full collection, over frozen objects too."""
    gc.unfreeze()
    gc.collect()

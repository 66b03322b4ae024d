"""When Python looks for garbage: not among packages and models, which stay.

Theirs are a million objects. A look at all of them takes half a second, and Python, torch and vLLM
take many: while packages are imported, while a model is loaded, every few hundred questions.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_for_good() -> Iterator[None]:
    """No look while the block imports; what is there at its end is spared until `collect`."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        gc.freeze()


@contextmanager
def spared() -> Iterator[None]:
    """What is there is spared from the looks that are taken meanwhile."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def collect() -> None:
    """Frees what nobody holds any more, of what was spared too."""
    gc.unfreeze()
    gc.collect()

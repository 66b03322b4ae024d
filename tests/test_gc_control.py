from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from gc import unfreeze

import pytest

from slm_vllm.gc_control import collect, frozen_heap, frozen_imports, skipped_collections


class Node:
    """Refers to itself, so that only a look at all objects frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _unfrozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' process keeps its objects frozen."""
    monkeypatch.setattr(gc, "unfreeze", unfreeze)
    unfreeze()
    yield
    gc.enable()
    gc.freeze()


def test_what_was_imported_is_spared_until_all_is_collected() -> None:
    with frozen_imports():
        assert not gc.isenabled()
        gone = weakref.ref(Node())
    assert gc.isenabled()
    gc.collect()
    assert gone() is not None
    collect()
    assert gone() is None and gc.get_freeze_count() == 0


def test_a_process_without_collections_stays_so() -> None:
    gc.disable()
    with pytest.raises(ZeroDivisionError), frozen_imports():
        raise ZeroDivisionError
    assert not gc.isenabled()


def test_what_is_there_is_spared_for_a_while_and_what_comes_is_not() -> None:
    gone = weakref.ref(Node())
    with frozen_heap():
        new = weakref.ref(Node())
        gc.collect()
        assert gone() is not None and new() is None
    gc.collect()
    assert gone() is None


def test_collections_are_skipped_in_a_block_alone() -> None:
    gone = weakref.ref(Node())
    gc.freeze()
    with pytest.raises(ZeroDivisionError), skipped_collections():
        gc.unfreeze()
        assert gc.collect() == 0 and gc.get_freeze_count() > 0
        raise ZeroDivisionError
    assert gone() is not None
    collect()
    assert gone() is None and gc.get_freeze_count() == 0

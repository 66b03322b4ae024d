from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.errors import DataError
from slm_vllm.runs import index_pool
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.index_pool import IndexPool


class Retriever:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Retriever]:
    """Every retriever that was opened."""
    found: list[Retriever] = []

    def open_index(*_: Any, **__: Any) -> Retriever:
        found.append(Retriever())
        return found[-1]

    monkeypatch.setattr(index_pool, "open_index", open_index)
    return found


def searching(key: str, searches: bool = True) -> Cell:
    config = SimpleNamespace(retriever=None, cache_dir="cache")
    corpus = SimpleNamespace(documents=None, key=key, notices=[])
    questions = SimpleNamespace(corpus=corpus)
    cell = SimpleNamespace(index_key=key, searches=searches, config=config, questions=questions)
    return cast(Cell, cell)


def test_cells_of_one_index_share_it_and_it_closes_with_the_last(opened: list[Retriever]) -> None:
    pool = IndexPool(print)
    cells = [searching("a"), searching("b"), searching("a")]
    found = [pool.loader(cell).wait() for cell in cells]
    assert found == [opened[0], opened[1], opened[0]]
    pool.keep(cells[2:])
    assert [retriever.closed for retriever in opened] == [False, True]
    pool.close()
    assert [retriever.closed for retriever in opened] == [True, True]


def test_what_the_prompt_takes_of_a_search_needs_no_index_of_its_own() -> None:
    def key(**changes: Any) -> str:
        retriever = RetrieverConfig(name="a", kind="bm25").model_copy(update=changes)
        cell = SimpleNamespace(
            config=SimpleNamespace(retriever=retriever),
            questions=SimpleNamespace(corpus=SimpleNamespace(key="corpus")),
        )
        return str(Cell.index_key.fget(cell))  # type: ignore[attr-defined]

    assert key() == key(name="b", top_k=7, min_score=0.5)
    assert key() != key(kind="dense")
    assert key() != key(options={"k1": 2.0})


def test_only_the_next_cell_that_searches_is_begun(opened: list[Retriever]) -> None:
    pool = IndexPool(print)
    pool.start([searching("-", searches=False), searching("a"), searching("b")])
    pool.close()
    assert len(opened) == 1


def test_a_fault_is_raised_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DataError("nothing to search")

    monkeypatch.setattr(index_pool, "open_index", fail)
    pool = IndexPool(print)
    with pytest.raises(DataError, match="nothing to search"):
        pool.loader(searching("a")).wait()
    pool.close()


def test_a_signal_ends_the_wait_and_closing_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def build(*_: Any, cancelled: Callable[[], bool], **__: Any) -> None:
        while not cancelled():
            looked.wait(0.01)
        raise InterruptedError

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(index_pool, "open_index", build)
    pool = IndexPool(print)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            pool.loader(searching("a")).wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    pool.close()

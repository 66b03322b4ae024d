from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from slm_vllm.engines.prefetch import Prefetcher

TIMEOUT = 10.0


def drain(source: Prefetcher[int]) -> list[int]:
    items = []
    while (item := source.take(wait=True)) is not None:
        items.append(item)
    return items


class Counting:
    """An endless source; `reached(n)` waits until n items were asked of it."""

    def __init__(self) -> None:
        self.made = 0
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[int]:
        for item in itertools.count():
            with self._changed:
                self.made += 1
                self._changed.notify_all()
            yield item

    def reached(self, n: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.made >= n, TIMEOUT)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_order(size: int) -> None:
    source = Prefetcher(range(200), size)
    assert drain(source) == list(range(200))
    assert source.exhausted
    assert source.take(wait=True) is None


def test_empty_source() -> None:
    source: Prefetcher[int] = Prefetcher([], 4)
    assert source.take(wait=True) is None
    assert source.exhausted


def test_zero_size_still_works() -> None:
    assert drain(Prefetcher(range(3), 0)) == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 5])
def test_reads_ahead_but_no_further(size: int) -> None:
    """`size` items wait and one more is in the reader's hand."""
    numbers = Counting()
    source = Prefetcher(numbers, size)
    try:
        for taken in range(20):
            assert numbers.reached(taken + size + 1)
            assert numbers.made <= taken + size + 1
            assert source.take(wait=True) == taken
    finally:
        source.close()
    # Closing drops what waits; the reader may still make the item it has begun.
    assert numbers.made <= 20 + size + 2


def test_take_without_waiting() -> None:
    gate = threading.Event()

    def slow() -> Iterator[int]:
        assert gate.wait(TIMEOUT)
        yield 7

    source = Prefetcher(slow(), 2)
    assert source.take(wait=False) is None
    assert not source.exhausted
    gate.set()
    assert source.take(wait=True) == 7
    source.close()


def test_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("row 3")

    source = Prefetcher(failing(), 8)
    assert source.take(wait=True) == 1
    assert source.take(wait=True) == 2
    with pytest.raises(LookupError, match="row 3"):
        source.take(wait=True)
    assert source.exhausted
    assert source.take(wait=True) is None
    source.close()


def close_in_time(source: Prefetcher[int]) -> None:
    closer = threading.Thread(target=source.close, daemon=True)
    closer.start()
    closer.join(TIMEOUT)
    assert not closer.is_alive()


def test_close_while_the_reader_waits_for_room() -> None:
    numbers = Counting()
    source = Prefetcher(numbers, 2)
    assert numbers.reached(3)
    close_in_time(source)
    close_in_time(source)
    made = numbers.made
    assert source.take(wait=True) is None
    assert source.exhausted
    assert numbers.made == made


def test_close_before_the_end_of_an_endless_source() -> None:
    source = Prefetcher(itertools.count(), 3)
    assert [source.take(wait=True) for _ in range(1000)] == list(range(1000))
    close_in_time(source)


def test_close_after_an_error_nobody_took() -> None:
    def failing() -> Iterator[int]:
        raise LookupError
        yield 1

    close_in_time(Prefetcher(failing(), 1))

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from slm_vllm.parallel import in_order


def test_results_come_in_the_order_of_the_items() -> None:
    later = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            later.wait()  # the first ends last
        if item == 2:
            later.set()
        return item * 10

    assert list(in_order(ThreadPoolExecutor(3), work, range(3), 4)) == [0, 10, 20]


def test_no_more_items_are_read_than_may_be_ahead() -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(100):
            read.append(item)
            yield item

    with closing(in_order(ThreadPoolExecutor(2), str, items(), 3)) as results:
        assert next(results) == "0"
        assert read == [0, 1, 2]
        assert next(results) == "1"
        assert read == [0, 1, 2, 3]


def test_an_error_comes_at_its_turn_and_ends_the_work() -> None:
    def work(item: int) -> int:
        return 6 // item

    results = in_order(ThreadPoolExecutor(2), work, [3, 0, 2], 5)
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)

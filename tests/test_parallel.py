from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pytest

from slm_vllm.parallel import Workers, in_order


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


def test_results_before_an_error_of_the_items_are_given() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("damaged")

    results = in_order(ThreadPoolExecutor(2), str, items(), 8)
    assert [next(results), next(results)] == ["1", "2"]
    with pytest.raises(OSError, match="damaged"):
        next(results)


def test_processes_work_in_order_and_end() -> None:
    workers: Workers[int, int] = Workers(partial(pow, 2), 2)
    assert list(workers.map(range(40))) == [2**n for n in range(40)]
    assert all(process.poll() is not None for process in workers._processes)


def test_processes_end_when_no_more_is_wanted() -> None:
    workers: Workers[int, int] = Workers(partial(pow, 2), 2)
    with closing(workers.map(iter(int, 1))) as results:  # zeros without end
        assert next(results) == 1
    assert all(process.poll() is not None for process in workers._processes)


def test_an_error_in_a_process_is_raised_here() -> None:
    workers: Workers[int, int] = Workers(partial(pow, 2, mod=0), 1)
    with pytest.raises(ValueError, match="0"):
        list(workers.map([3]))


IN_A_WORKER = "__import__('sys').argv[0].endswith('parallel.py')"


def test_what_a_killed_process_was_at_is_done_here() -> None:
    workers: Workers[str, object] = Workers(eval, 2)
    items = [IN_A_WORKER, f"{IN_A_WORKER} and __import__('os')._exit(9)", "'here' + 'after'"]
    assert list(workers.map(items)) == [True, False, "hereafter"]


def test_what_the_work_prints_is_no_result() -> None:
    assert list(Workers(eval, 1).map(["print('text') or 7"])) == [7]

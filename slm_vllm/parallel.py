"""Work done ahead by a pool, given in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    pool: Executor, work: Callable[[T], R], items: Iterable[T], ahead: int
) -> Generator[R, None, None]:
    """Yields `work(item)` of each item, in the order of the items; closes the pool at the end.

    Args:
        pool: Threads or processes.
        work: What is done; its first error is raised here, at its item's turn.
        items: Read as far as `ahead` goes, in the caller's thread.
        ahead: Items under way or done at most, before the first of them is taken.
    """
    waiting: deque[Future[R]] = deque()
    with pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

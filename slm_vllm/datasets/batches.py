"""Batches of bounded number and size."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from slm_vllm.errors import DataError

Item = TypeVar("Item")


def batched(
    items: Iterable[Item],
    size_of: Callable[[Item], int],
    max_size: int,
    max_items: int = sys.maxsize,
) -> Iterator[list[Item]]:
    """Collects items; those before a fault in the data are given first.

    Args:
        items: What is collected.
        size_of: How large one is.
        max_size: A batch ends with the item that makes it as large as this.
        max_items: Most of them in a batch.
    """
    batch: list[Item] = []
    size = 0
    try:
        for item in items:
            batch.append(item)
            size += size_of(item)
            if len(batch) >= max_items or size >= max_size:
                yield batch
                batch, size = [], 0
    except DataError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch

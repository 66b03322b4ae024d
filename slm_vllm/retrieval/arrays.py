"""Arrays in numpy's own files, opened by several threads at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_lock = threading.Lock()


def mapped_array(path: Path) -> NDArray[Any]:
    """An array of a file, memory-mapped.

    One thread at a time reads a file's head: Python before 3.12 counts the depth of what it parses
    for all threads together, and ends one of them with a SystemError.
    """
    with _lock:
        found: NDArray[Any] = np.load(path, mmap_mode="r")
    return found

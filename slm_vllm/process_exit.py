"""Ends a process that has loaded a model without Python's teardown.

Deallocating a million objects of torch and vLLM one by one takes seconds; the kernel frees their
memory at once. So the process calls `os._exit` after all other exit handlers have run and all
output is flushed.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import NoReturn

_code: int | None = None


def prepare_exit() -> None:
    """Call before anything else in a process: the first `atexit` handler registered runs last."""
    atexit.register(_leave)


def exit_process(code: int | None) -> NoReturn:
    """Ends the process.

    Args:
        code: Its exit code; None is 0, as for `sys.exit`.
    """
    global _code
    _code = code or 0
    sys.exit(_code)


def _leave() -> None:
    if _code is None or "torch" not in sys.modules:
        return
    logging.shutdown()  # was registered before
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)

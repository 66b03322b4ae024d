"""The end of a process that has loaded a model.

Taking a million objects of torch and vLLM apart one by one takes seconds; the kernel frees their
memory at once. So such a process ends when all that runs at exit has run and all is written.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import NoReturn

_code: int | None = None


def leave_last() -> None:
    """Call first in a process: what is registered with `atexit` first runs last."""
    atexit.register(_leave)


def leave(code: int | None) -> NoReturn:
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

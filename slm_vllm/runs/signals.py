"""SIGINT, SIGTERM and SIGHUP: finish what is in flight, say how to resume, exit.

The first signal asks the run to stop. While answers are generated the run drains; in any other
phase (loading the model, building an index) it is interrupted where it is. A second signal ends
the process at once; the journal is on the disk by then, line by line.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the run to stop; not an `Exception`, so that nothing swallows it.

    Attributes:
        signum: The signal.
        exit_code: What the process should exit with: 128 + signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.exit_code = 128 + signum

    def message(self, *, overwrite: bool) -> str:
        """What the user is told.

        Args:
            overwrite: Whether the command had `--overwrite`, which would remove what is kept.
        """
        again = "the same command without --overwrite" if overwrite else "the same command"
        return f"{self}. All answers so far are kept; {again} resumes from there."


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Gives a handler the signals that come while the block runs (main thread only).

    A signal that is ignored stays ignored: that is how nohup protects a run from SIGHUP.
    """
    previous = {
        signum: signal.signal(signum, handler)
        for signum in SIGNALS
        if signal.getsignal(signum) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for signum, before in previous.items():
            signal.signal(signum, before)


class StopSignals:
    """Takes the signals while its block runs.

    Args:
        install: False leaves every signal to the caller, as a thread has to.

    Attributes:
        received: The first signal, None before it.
        raised: Whether `Interrupted` was raised where the run was.
    """

    def __init__(self, *, install: bool = True) -> None:
        self._handled = handled(self._handle) if install else nullcontext()
        self.received: int | None = None
        self.raised = False
        self._ask_to_stop: Callable[[], object] | None = None

    def __enter__(self) -> StopSignals:
        self._handled.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._handled.__exit__(*error)

    def interruption(self) -> Interrupted | None:
        """The signal behind an error, if one was.

        Compiled code may turn `Interrupted` into an error of its own (Ray: a SystemError).
        """
        if self.raised and self.received is not None:
            return Interrupted(self.received)
        return None

    def wait_out(self, ask_to_stop: Callable[[], object]) -> None:
        """From now on a signal lets what is in flight come to its end.

        Args:
            ask_to_stop: Called at the signal; the next answer may be long in coming.
        """
        self._ask_to_stop = ask_to_stop

    def raise_at_once(self) -> None:
        """From now on a signal is raised where the run is; one that came meanwhile is raised here.

        Raises:
            Interrupted: It did.
        """
        self._ask_to_stop = None
        if self.received is not None:
            self.raised = True
            raise Interrupted(self.received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + signum)
        self.received = signum
        if self._ask_to_stop is None:
            self.raised = True
            raise Interrupted(signum)
        self._ask_to_stop()

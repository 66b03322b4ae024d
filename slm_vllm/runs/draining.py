"""Keeps asking an engine through its death, and ends in good order when a signal asks to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from slm_vllm.errors import EngineDiedError
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.runs.services import Services

_DRAIN_SECONDS = 20.0


class Drain:
    """The time that requests in flight have to finish after the first signal."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ends: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether a signal came, and the time since has passed."""
        if self._services.signals.received is None:
            return False
        now = time.monotonic()
        if self._ends is None:
            self._ends = now + _DRAIN_SECONDS
            self._services.console.say("Stopping: finishing what is in flight ...")
        return now > self._ends


def ask_through_death(
    ask: Callable[[bool], None], host: EngineHost, services: Services, stop: Callable[[], None]
) -> float:
    """Asks an engine; if it dies, restarts it once and asks again what has no answer.

    While `ask` runs, a signal calls `stop` and interrupts nothing; it is raised at the end.

    Args:
        ask: Sends the requests; its argument is whether the engine was restarted.
        host: The engine.
        services: Signals of the command.
        stop: Has `ask` send nothing more.

    Returns:
        Seconds that the restart took.

    Raises:
        EngineError: The engine died twice, or cannot be started.
        Interrupted: A signal came.
    """
    signals, seconds = services.signals, 0.0
    signals.wait_out(stop)
    try:
        ask(False)
    except EngineDiedError as error:
        signals.raise_at_once()
        died = time.monotonic()
        host.restart(error)
        seconds = time.monotonic() - died
        signals.wait_out(stop)
        ask(True)
    signals.raise_at_once()
    return seconds

"""Asks the open rows of a cell, through the death of an engine and signals to stop."""

from __future__ import annotations

import time
from contextlib import closing

from slm_vllm.gc_control import frozen_heap
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.cell_rows import CellRows, Plan
from slm_vllm.runs.draining import Drain, ask_through_death
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.runs.progress import Progress
from slm_vllm.runs.services import Services

_LOG_SECONDS = 1.0


class Asking:
    """Has the engine answer rows of a cell.

    Args:
        cell: The cell.
        rows: Its rows.
        host: The engine.
        services: Console and signals of the command.
    """

    def __init__(self, cell: Cell, rows: CellRows, host: EngineHost, services: Services) -> None:
        self._cell, self._rows = cell, rows
        self._host, self._services = host, services

    def ask(self, plan: Plan, progress: Progress, *, one_at_a_time: bool = False) -> float:
        """Asks what is open and returns the seconds it took.

        Raises:
            EngineError: The engine died for the second time, or left rows out.
            Interrupted: A signal stopped the run.
        """

        def ask(again: bool) -> None:
            left = self._rows.plan().within(plan.open) if again else plan
            self._ask(left, progress, one_at_a_time)

        started = time.monotonic()
        # A restart is counted as loading.
        started += ask_through_death(ask, self._host, self._services, self._stop)
        self._rows.check_answered(plan)
        return time.monotonic() - started

    def _stop(self) -> None:
        self._rows.stop()
        self._host.engine.wind_down()

    def _ask(self, plan: Plan, progress: Progress, one_at_a_time: bool) -> None:
        cell, services = self._cell, self._services
        begun = time.monotonic()
        drain = Drain(services)
        look_at = 0.0
        answering = self._rows.answers(
            self._host.engine, plan, progress, one_at_a_time=one_at_a_time
        )
        with closing(answering) as answers, frozen_heap():
            for _ in answers:
                services.start.setdefault("first answer", time.monotonic() - begun)
                if time.monotonic() >= look_at:
                    services.log.keep_small()
                    look_at = time.monotonic() + _LOG_SECONDS
                if progress is cell.progress:
                    cell.state.beat(progress.figures)
                    cell.recorder.progress(progress, services.memory.sample)
                else:  # rows that are counted already
                    cell.state.beat(dict)
                if drain.is_over:
                    break
        progress.show()
        services.console.end_line()

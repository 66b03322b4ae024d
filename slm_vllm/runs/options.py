"""Options of `evaluate` that are no part of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.fork_server import ForkServer
from slm_vllm.engines.settings import EngineSettings

Then = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of `evaluate` that are no part of a run's configuration.

    Attributes:
        overwrite: Replace an earlier run of the same name.
        retry_errors: Ask again the questions that failed in an earlier run.
        keep_going: A cell that fails is recorded, and the others are run.
        track: Tell the tracker of the configuration; False for `--no-clearml`.
        own_process: The process is the run's own, as the command line's is: standard output and
            error go to `engine.log`, and SIGINT, SIGTERM and SIGHUP finish what is in flight.
            Otherwise (a notebook, a thread, a server) both stay the caller's.
        today: The day the command began, for chat templates that write it; see `prompt_day`.
        make_engine: Builds the engine; None: the one that the configuration names.
        import_engine: Imports what it needs, ahead of time and in another thread; None likewise.
        fork_server: What engines are forked from, if that has begun; the run ends it.
        then: Done with the results before anybody is told that they are there; gives them back,
            with what it has found.
    """

    overwrite: bool = False
    retry_errors: bool = False
    keep_going: bool = False
    track: bool = True
    own_process: bool = False
    today: date = field(default_factory=date.today)
    make_engine: Callable[[EngineSettings], BaseEngine] | None = None
    import_engine: Callable[[], None] | None = None
    fork_server: ForkServer | None = None
    then: Then | None = None

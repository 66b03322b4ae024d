"""Owns the engine of a command: starts it on demand, and once more if it dies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from slm_vllm.config.schema import Config
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.engines.start_log import start_parts
from slm_vllm.errors import EngineDiedError
from slm_vllm.runs.services import Services

log = logging.getLogger(__name__)


class EngineHost:
    """Holds the engine that all cells of a command share.

    Args:
        config: Says what it loads and where it runs, for the user.
        settings: What it is told.
        make_engine: Builds it.
        engine_log: Where what it prints may be found.
        services: Console, signals and clock of the command, which close it.

    Attributes:
        settings: What it is told.
        details: What it reported of itself, for the manifest; empty before it is started.
    """

    def __init__(
        self,
        config: Config,
        settings: EngineSettings,
        make_engine: Callable[[EngineSettings], BaseEngine],
        engine_log: Path,
        services: Services,
    ) -> None:
        self.settings = settings
        self.details: dict[str, Any] = {}
        self._make_engine, self._model = make_engine, config.model.name
        self._place = config.engine.place or services.device.name
        self._engine_log, self._services = engine_log, services
        self._engine: BaseEngine | None = None
        self._loaded = services.stack.enter_context(ExitStack())
        self._has_died = False
        self._failure: Exception | None = None

    @property
    def engine(self) -> BaseEngine:
        """The engine, started if it was not; see `start`."""
        self.start()
        assert self._engine is not None
        return self._engine

    def start(self) -> None:
        """Starts the engine where it is not yet.

        Raises:
            EngineError: It cannot be started; said again, without another try, to whoever asks.
        """
        if self._failure is not None:
            raise self._failure
        if self._engine is not None:
            return
        self._services.console.say(f"Loading {self._model} on {self._place} ...")
        engine = self._loaded.enter_context(self._make_engine(self.settings))
        engine.say = self._services.console.say
        before = _size(self._engine_log)
        with self._services.phase("load"), self._services.part("engine"):
            try:
                info = engine.start()
            except Exception as error:
                self._failure = error
                raise
        for part, seconds in start_parts(_written(self._engine_log, before)).items():
            self._services.start[f"engine {part}"] = seconds
        self._engine = engine
        self.details = {"name": info.engine, "max_model_len": info.max_model_len}
        self.details |= info.details

    def restart(self, error: EngineDiedError) -> None:
        """Loads a dead engine again, once in a command.

        Args:
            error: How it died.

        Raises:
            EngineDiedError: It was the second time, or the run is to stop.
        """
        if self._has_died or self._services.signals.received is not None:
            raise error
        self._has_died = True
        log.warning("%s", error, exc_info=error)
        self._services.console.say("The engine died; starting it again (once). Answers are kept.")
        self._engine = None
        try:
            self._loaded.close()
        except Exception as problem:  # it is dead, and another one is to take its place
            log.warning("the engine that died could not be closed: %s", problem)
        self.start()

    def memory_usage(self) -> dict[str, Any]:
        """Memory of its parts that run elsewhere; see `BaseEngine.memory_usage`."""
        return {} if self._engine is None else self._engine.memory_usage()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _written(path: Path, start: int) -> list[str]:
    """The lines of a log from a place on; none where it is missing or was replaced."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []

"""`BaseEngine`: the interface of an engine."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar

from slm_vllm.config.engine import EngineConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.types import AuxiliaryTask, Completion, EngineInfo, GenerationRequest

log = logging.getLogger(__name__)


class BaseEngine(AbstractContextManager["BaseEngine"]):
    """Generates one completion for each request.

    Used as a context manager: entering it loads the model, leaving it frees everything, on every
    path. One engine answers any number of streams, one after the other.

    Args:
        settings: Model, device and sampling, sized for the run.
        config: The `engine` section; None: all defaults.
    """

    config_class: ClassVar[type[EngineConfig]] = EngineConfig
    """The class of its `engine` section."""
    auxiliary: ClassVar[frozenset[str]] = frozenset()
    """Which auxiliary requests it answers: "text", "margin"; an engine is sent no others."""

    say: Callable[[str], None] = staticmethod(log.info)
    """Tells the user something; a command puts its console here."""

    def __init__(self, settings: EngineSettings, config: EngineConfig | None = None) -> None:
        self._settings = settings

    @classmethod
    def import_ahead(cls) -> None:
        """Imports what `start` needs and takes long; called in another thread, raises nothing."""

    @abstractmethod
    def start(self) -> EngineInfo:
        """Loads the model.

        Raises:
            EngineError: It cannot be loaded; the message says why and what to change.
        """

    @abstractmethod
    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        """Yields a completion for each request as it finishes, in any order.

        A bounded number of requests is in flight; `requests` is read in another thread, so
        that making them (retrieval, tokenizing) overlaps with generation. What a request raises
        becomes a completion with an error; closing the iterator drops what is in flight.

        Raises:
            EngineError: The engine itself died.
        """

    def forget_prompts(self) -> None:
        """Drops what is kept of earlier prompts, so that the same ones are computed again."""

    def wind_down(self) -> None:
        """Ends the stream soon: sends nothing more, drops what is not answered in seconds.

        May be called from a signal handler.
        """

    def memory_usage(self) -> dict[str, Any]:
        """Memory of what runs elsewhere, by name, in MiB; empty where all is on this machine."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Frees memory and processes; may be called more than once."""

    def __exit__(self, *_: object) -> None:
        self.close()


def auxiliary_settings(settings: EngineSettings, task: AuxiliaryTask) -> EngineSettings:
    """The settings for an auxiliary request: greedy, whatever the run samples."""
    generation = GenerationConfig(max_new_tokens=task.max_new_tokens)
    return replace(settings, generation=generation, stop=(), only_answers=(), ignore_eos=False)

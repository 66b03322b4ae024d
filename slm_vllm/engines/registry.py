"""Which class serves which `engine.name`.

A package of its own can add one with an entry point in the group `slm_vllm.engines`, whose name is
the engine's and whose value is a class derived from `BaseEngine`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from slm_vllm.config.engine import EngineConfig, added_engines
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest

_BUILT_IN = {
    "vllm": "slm_vllm.engines.vllm_offline:VllmEngine",
    "openai": "slm_vllm.engines.openai_engine:OpenAIEngine",
    "ray": "slm_vllm.engines.ray_engine:RayEngine",
}

EngineFactory = Callable[[EngineSettings], BaseEngine]


def engine_names() -> list[str]:
    """All engines there are, those of installed packages included."""
    return [*_BUILT_IN, *sorted(added_engines())]


def engine_class(name: str) -> type[BaseEngine]:
    """The class of an engine. Imports nothing heavy for the built-in ones.

    Raises:
        ConfigError: There is no such engine, or its entry point cannot be loaded.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
        assert issubclass(found, BaseEngine)
        return found
    point = added_engines().get(name)
    if point is None:
        raise ConfigError(
            f"engine.name={name}: there is no such engine. {nearest(name, engine_names())}"
        )
    try:
        found = point.load()
    except Exception as error:  # whatever the other package raises
        raise ConfigError(
            f"engine.name={name}: the entry point {point.value} cannot be loaded: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseEngine)):
        raise ConfigError(f"engine.name={name}: {point.value} is not a class of engines")
    return found


def engine_factory(config: EngineConfig) -> EngineFactory:
    """What makes the engine of a run, once its settings are known.

    Raises:
        ConfigError: There is no such engine.
    """
    found = engine_class(config.name)
    return lambda settings: found(settings, config)

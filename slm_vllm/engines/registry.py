"""Which class serves which `engine.name`.

A package of its own can add one with an entry point in the group `slm_vllm.engines`, whose name is
the engine's and whose value is a class derived from `BaseEngine`.
"""

from __future__ import annotations

from collections.abc import Callable

from slm_vllm.config.engine import ENTRY_POINTS, EngineConfig
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.plugins import Registry

_ENGINES = Registry(
    key="engine.name",
    noun="engine",
    group=ENTRY_POINTS,
    base=BaseEngine,  # type: ignore[type-abstract]
    built_in={
        "vllm": "slm_vllm.engines.vllm_offline:VllmEngine",
        "openai": "slm_vllm.engines.openai_engine:OpenAIEngine",
        "ray": "slm_vllm.engines.ray_engine:RayEngine",
    },
    arguments=("settings", "config"),
)

engine_names = _ENGINES.names
engine_class = _ENGINES.find

EngineFactory = Callable[[EngineSettings], BaseEngine]


def engine_factory(config: EngineConfig) -> EngineFactory:
    """What makes the engine of a run, once its settings are known.

    Raises:
        ConfigError: There is no such engine.
    """
    found = engine_class(config.name)
    return lambda settings: found(settings, config)

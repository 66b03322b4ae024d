"""Which class serves which `engine.name`."""

from __future__ import annotations

from collections.abc import Callable

from slm_vllm.config.schema import Config
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest

ENGINES = ("vllm", "openai", "ray")

EngineFactory = Callable[[EngineSettings], BaseEngine]


def engine_factory(config: Config) -> EngineFactory:
    """What makes the engine of a run, once its settings are known.

    Raises:
        ConfigError: There is no such engine, or it lacks a setting.
    """
    section = config.engine
    if section.name == "openai":
        from slm_vllm.engines.openai_engine import OpenAIEngine

        names = (config.model.path, config.model.name)
        if not section.base_url:
            raise ConfigError(
                "engine.name=openai needs the address of a server: --base-url "
                "http://localhost:8000/v1 (engine.base_url in the configuration)"
            )
        return lambda settings: OpenAIEngine(settings, section, names, prompt=config.prompt)
    if section.base_url:
        raise ConfigError(
            f"engine.base_url is set, but engine.name is {section.name}, which asks no server. "
            "Use --engine openai"
        )
    if section.name == "ray":
        from slm_vllm.engines.ray_engine import RayEngine
        from slm_vllm.engines.vllm_offline import VllmEngine

        return lambda settings: RayEngine(settings, section, VllmEngine)
    if section.ray_address is not None or section.replicas is not None:
        raise ConfigError(
            f"engine.ray_address and engine.replicas are for Ray, but engine.name is "
            f"{section.name}. Use --engine ray"
        )
    if section.name == "vllm":
        from slm_vllm.engines.vllm_offline import VllmEngine

        return VllmEngine
    raise ConfigError(
        f"engine.name={section.name}: there is no such engine. {nearest(section.name, ENGINES)}"
    )


def engine_import(config: Config) -> Callable[[], None]:
    """What imports the engine's packages ahead of its start; nothing where they are small."""
    if config.engine.name == "vllm":
        from slm_vllm.engines.vllm_offline import import_ahead

        return import_ahead
    if config.engine.name == "ray":
        from slm_vllm.engines.ray_cluster import import_ahead as import_ray_ahead

        return import_ray_ahead
    return lambda: None

"""The `engine` section: one class of settings for each engine, chosen by `engine.name`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from slm_vllm.config.section import Section
from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest
from slm_vllm.plugins import added_classes, load_named, used_folder

ENTRY_POINTS = "slm_vllm.engines"


def _one_or_several(value: Any) -> Any:
    """Addresses as a list, where they are one text."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _without_secrets(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Checks the addresses of servers, which are stored with a run.

    Raises:
        ValueError: One is no address, or has a password in it.
    """
    for url in urls:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("has a user or password in it; use api_key_env beside it instead")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"'{url}' is not an address such as http://localhost:8000/v1")
    return urls


ServerUrls = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_several), AfterValidator(_without_secrets)
]
"""Addresses of servers: a list, or one text with commas between them."""


class EngineConfig(Section):
    """Which engine generates and how far requests run ahead of it.

    What only one engine has is in the class derived for it.
    """

    weights_are_known: ClassVar[bool] = True
    """Whether the weights and the data type that answer are those this process knows of."""

    name: str = "vllm"
    """`vllm` (on this machine), `openai` (running servers) or `ray` (many engines)."""
    max_in_flight: int | None = Field(default=None, ge=1)
    """Requests handed to the engine and not yet finished; null: twice `max_num_seqs`. Of each
    server (openai) or engine, where there are several."""

    @property
    def place(self) -> str | None:
        """Where it answers, if that is not this machine's device."""
        return None

    @property
    def takes_prompts(self) -> bool:
        """Whether it is given whole prompts, and does not put them together itself."""
        return True

    def changes_answers(self) -> dict[str, Any]:
        """What of this section an answer depends on; part of the run's fingerprint."""
        return {}

    @classmethod
    def may_have_more(cls) -> bool:
        """An engine of a plain file may: its class checks them, once it is known."""
        return used_folder() is not None

    @classmethod
    def known_keys(cls) -> Mapping[str, FieldInfo]:
        """The keys of all engines: which one is chosen is not known key by key."""
        sections = [*_BUILT_IN.values(), *_chosen_files.values()]
        for name in _added_engines():
            with suppress(ValueError):  # a broken package is reported when its engine is chosen
                sections.append(_added_section(name))
        return {key: field for section in sections for key, field in section.model_fields.items()}


class VllmConfig(EngineConfig):
    """vLLM on this machine."""

    replicas_per_gpu: int | Literal["auto"] = "auto"
    """Engines on each GPU, or on the CPU, in a process each; `auto`: several where they pay."""

    @field_validator("replicas_per_gpu", mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value != "auto" and (not str(value).isdigit() or int(value) < 1):
            raise ValueError(f"must be auto or a number from 1 on, found {value}")
        return value


class OpenAIConfig(EngineConfig):
    """Running OpenAI-compatible servers."""

    weights_are_known: ClassVar[bool] = False

    name: str = "openai"
    base_url: ServerUrls = ()
    """Addresses of the servers, such as `http://localhost:8000/v1`."""
    endpoint: Literal["completions", "chat"] = "completions"
    """`completions` gets whole prompts; `chat` gets turns, which the server puts together with its
    own chat template."""
    served_model: str | None = None
    """The name under which the servers know the model; null: found by its path."""
    api_key_env: str | None = None
    """The environment variable that holds the key; null: OPENAI_API_KEY, if it is set."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that one request may take."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, as the server names them."""

    @property
    def place(self) -> str | None:
        """The addresses."""
        return ", ".join(self.base_url)

    @property
    def takes_prompts(self) -> bool:
        """Not at the chat end point."""
        return self.endpoint == "completions"

    def changes_answers(self) -> dict[str, Any]:
        """What the servers are asked for, and how; where they are changes no answer."""
        content: dict[str, Any] = {
            "served": self.model_dump(include={"served_model", "extra_body"})
        }
        if self.endpoint == "chat":
            content["endpoint"] = "chat"
        return content

    @model_validator(mode="after")
    def _has_an_address(self) -> OpenAIConfig:
        if not self.base_url:
            raise ValueError(
                "engine.name=openai needs the address of a server: --base-url "
                "http://localhost:8000/v1 (engine.base_url in the configuration)"
            )
        return self


class RayConfig(EngineConfig):
    """Many engines on a Ray cluster."""

    name: str = "ray"
    ray_address: str | None = None
    """`auto` or HOST:PORT of a cluster; null: Ray on this machine, for this run."""
    replicas: int | None = Field(default=None, ge=1)
    """How many engines; null: as many as the GPUs are enough for, one without GPUs."""
    gpus_per_replica: float = Field(default=1.0, gt=0)
    """GPUs of each engine; two and more are used with tensor parallelism."""


_BUILT_IN: dict[str, type[EngineConfig]] = {
    "vllm": VllmConfig,
    "openai": OpenAIConfig,
    "ray": RayConfig,
}


_chosen_files: dict[str, type[EngineConfig]] = {}
"""The sections of engines of plain files that were asked for, to name their keys in messages."""


def _added_engines() -> dict[str, Any]:
    """Entry points of engines that other packages bring, by name."""
    found = added_classes(ENTRY_POINTS)
    return {name: point for name, point in found.items() if name not in _BUILT_IN}


def engine_section(value: Any) -> Any:
    """The section of the engine that a mapping names; anything else is left to pydantic.

    Keys of another engine that say nothing (each section once held the keys of all) are dropped.

    Raises:
        ValueError: There is no such engine, or a key belongs to another one.
    """
    if not isinstance(value, Mapping):
        return value
    name = str(value.get("name") or "vllm")
    section = _BUILT_IN.get(name)
    if section is None:
        section = _added_section(name)
    own = {}
    for key, given in value.items():
        other = _owner(key) if key not in section.model_fields else None
        if other is None:
            own[key] = given
        elif not _says_nothing(_BUILT_IN[other].model_fields[key], given):
            raise ValueError(
                f"engine.{key} is for engine.name={other}, but engine.name is {name}. "
                f"Use --engine {other}"
            )
    return section.model_validate(own)


def _owner(key: str) -> str | None:
    """The built-in engine that has a key."""
    return next((n for n, section in _BUILT_IN.items() if key in section.model_fields), None)


def _says_nothing(field: FieldInfo, given: Any) -> bool:
    default = field.get_default(call_default_factory=True)
    return bool(given == default or (not given and not default))


def _added_section(name: str) -> type[EngineConfig]:
    """The settings class of an engine of another package or of a file.

    Raises:
        ValueError: There is no such engine, or it cannot be loaded.
    """
    try:
        engine = load_named(ENTRY_POINTS, name)
    except ConfigError as error:
        raise ValueError(f"engine.name={name}: {error}") from None
    if engine is None:
        valid = [*_BUILT_IN, *_added_engines()]
        raise ValueError(f"engine.name={name}: there is no such engine. {nearest(name, valid)}")
    found = getattr(engine, "config_class", EngineConfig)
    if not (isinstance(found, type) and issubclass(found, EngineConfig)):
        raise ValueError(f"engine.name={name}: its config_class is no EngineConfig")
    if ":" in name:
        _chosen_files[name] = found
    return found

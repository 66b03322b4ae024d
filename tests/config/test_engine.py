"""The `engine` section: its class follows `engine.name`."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import yaml

from slm_vllm import plugins
from slm_vllm.config.compose import compose_config, validated
from slm_vllm.config.engine import ENTRY_POINTS, EngineConfig, OpenAIConfig, RayConfig
from slm_vllm.config.schema import Config
from slm_vllm.engines.registry import engine_class, engine_names
from slm_vllm.errors import ConfigError
from support.fake_engine import FakeEngine

SERVER = "engine.base_url=['http://localhost:8000/v1']"
OF_ALL_ENGINES: dict[str, Any] = {
    "max_in_flight": None,
    "base_url": [],
    "endpoint": "completions",
    "served_model": None,
    "api_key_env": None,
    "timeout": 600.0,
    "extra_body": {},
    "ray_address": None,
    "replicas": None,
    "gpus_per_replica": 1.0,
}


class OtherConfig(EngineConfig):
    warmth: int = 3


class OtherEngine(FakeEngine):
    config_class = OtherConfig


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose_config(words)
    return str(caught.value)


@pytest.mark.parametrize("name", ["vllm", "openai", "ray"])
def test_each_engine_has_the_section_and_the_class_of_its_name(name: str) -> None:
    words = [f"engine.name={name}"] + [SERVER] * (name == "openai")
    chosen = compose_config(words).engine
    assert type(chosen) is engine_class(name).config_class
    assert chosen.name == name


def test_a_section_survives_the_way_to_a_file_and_back() -> None:
    config = compose_config(["engine.name=openai", SERVER, "engine.timeout=9"])
    again = Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config
    assert isinstance(again.engine, OpenAIConfig) and again.engine.timeout == 9


@pytest.mark.parametrize("name", ["vllm", "openai", "ray"])
def test_a_stored_section_with_the_keys_of_all_engines_is_read(name: str) -> None:
    content = compose_config().model_dump(mode="json")
    content["engine"] = {**OF_ALL_ENGINES, "name": name}
    if name == "openai":
        content["engine"]["base_url"] = ["http://a:1"]
    assert validated(Config, content, "It").engine.name == name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["engine.timeout=3"], "engine.timeout is for engine.name=openai.*Use --engine openai"),
        ([SERVER, "engine.name=ray"], "engine.base_url is for engine.name=openai.*name is ray"),
        (["engine.replicas=2"], "engine.replicas is for engine.name=ray"),
        (["engine.name=openai"], "needs the address of a server: --base-url"),
        (["engine.name=opena"], "no such engine. Did you mean 'openai'"),
        (["engine.name=openai", SERVER, "engine.timeout=x"], "engine.timeout: input should be"),
        (["engine.basurl=3"], "there is no key 'basurl' in 'engine'. Did you mean 'base_url'"),
    ],
)
def test_what_is_refused_and_how(words: list[str], expected: str) -> None:
    assert re.search(expected, refusal(*words)), refusal(*words)


def test_what_of_the_section_is_part_of_the_fingerprint() -> None:
    """The content that earlier versions hashed, to the letter: their answers are found by it."""
    base: dict[str, Any] = {"base_url": ["http://a:1"], "timeout": 5, "max_in_flight": 3}
    assert OpenAIConfig(**base).changes_answers() == {
        "served": {"served_model": None, "extra_body": {}}
    }
    chat = OpenAIConfig(**base, endpoint="chat", served_model="m", extra_body={"priority": 1})
    assert chat.changes_answers() == {
        "served": {"served_model": "m", "extra_body": {"priority": 1}},
        "endpoint": "chat",
    }
    assert RayConfig(replicas=4).changes_answers() == EngineConfig().changes_answers() == {}


def test_entry_points_add_engines_with_settings_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [
        EntryPoint("other", f"{__name__}:OtherEngine", ENTRY_POINTS),
        EntryPoint("broken", "no.such.module:Class", ENTRY_POINTS),
        EntryPoint("vllm", f"{__name__}:OtherEngine", ENTRY_POINTS),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    config = compose_config(["engine.name=other", "engine.warmth=5"])
    assert config.engine == OtherConfig(name="other", warmth=5)
    assert engine_class("other") is OtherEngine
    assert engine_class("vllm") is not OtherEngine
    assert "other" in engine_names()
    assert re.search("broken: the entry point no.such.*loaded", refusal("engine.name=broken"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        engine_class("broken")

"""Answers held to a choice: what vLLM is told, in this process and behind a server."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.engines.openai_models import Served, Unusable, find_model
from slm_vllm.engines.openai_request import neutral_fields, request_body
from slm_vllm.engines.versions import choice_argument

LETTERS = ("A", "B")


@pytest.fixture
def settings() -> Any:
    generation = compose_config(["hardware=cpu"]).generation
    return SimpleNamespace(
        generation=generation, stop=(), seed=1, only_answers=LETTERS, model_defaults={}
    )


def test_a_vllm_server_is_told_in_the_words_of_all_releases(settings: Any) -> None:
    extra = request_body(settings, Served("m", make="vllm"))["extra_body"]
    assert extra["structured_outputs"] == {"choice": ["A", "B"]}
    assert extra["guided_choice"] == ["A", "B"]


@pytest.mark.parametrize("make", ["llama.cpp", "other"])
def test_other_servers_are_not(settings: Any, make: Any) -> None:
    body = request_body(settings, Served("m", make=make))
    assert "structured_outputs" not in body["extra_body"]


def test_a_run_without_choices_sends_what_it_did(settings: Any) -> None:
    settings.only_answers = ()
    extra = request_body(settings, Served("m", make="vllm"))["extra_body"]
    assert not {"structured_outputs", "guided_choice"} & set(extra)


def test_a_server_that_refuses_the_field_is_asked_without_it(settings: Any) -> None:
    body = request_body(settings, Served("m", make="vllm"))
    assert {"structured_outputs", "guided_choice"} <= neutral_fields(settings, body)
    body = request_body(settings, Served("m", make="vllm"), {"guided_choice"})
    assert "guided_choice" not in body["extra_body"]


def _vllm(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = ModuleType("vllm.sampling_params")
    setattr(module, name, lambda choice: (name, choice))
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", module)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("StructuredOutputsParams", "structured_outputs"),
        ("GuidedDecodingParams", "guided_decoding"),
    ],
)
def test_each_release_has_its_own_argument(
    monkeypatch: pytest.MonkeyPatch, name: str, argument: str
) -> None:
    _vllm(monkeypatch, name)
    assert choice_argument(LETTERS) == {argument: (name, ["A", "B"])}


def test_without_a_name_the_only_model_is_meant() -> None:
    assert find_model("url", [{"id": "one"}], (), None).name == "one"
    with pytest.raises(Unusable, match="served_model"):
        find_model("url", [{"id": "one"}, {"id": "two"}], (), None)
    with pytest.raises(Unusable, match="not other"):
        find_model("url", [{"id": "one"}], ("other",), None)

"""What differs between vLLM releases, with stand-ins for their modules."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from slm_vllm.engines.versions import prompt_maker


def module(name: str, **content: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(content)
    return made


def test_a_prompt_in_the_form_of_the_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    def tokens_input(token_ids: list[int]) -> dict[str, object]:
        return {"type": "token", "prompt_token_ids": token_ids}

    for made in (
        module("vllm"),
        module("vllm.inputs"),
        module("vllm.inputs.engine", tokens_input=tokens_input),
    ):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    assert prompt_maker()([1, 2]) == {"type": "token", "prompt_token_ids": [1, 2]}


def test_a_prompt_for_a_release_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", module("vllm", TokensPrompt=dict))
    for name in ("vllm.inputs", "vllm.inputs.engine"):  # another test may have imported them
        monkeypatch.setitem(sys.modules, name, None)
    assert prompt_maker()([1, 2]) == {"prompt_token_ids": [1, 2]}

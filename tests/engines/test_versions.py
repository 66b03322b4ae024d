"""What differs between vLLM releases, with stand-ins for their modules."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from slm_vllm.engines.versions import prompt_maker
from support.child import run_python


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


def test_what_numba_imports_can_be_read_as_vllm_does() -> None:
    """In a process of its own: a search may have made it readable here already."""
    code = """
        from llvmlite.binding import ffi
        from slm_vllm.engines.versions import make_modules_readable
        print("before:", type(vars(ffi.lib)).__name__)
        make_modules_readable()
        make_modules_readable()
        print("after:", vars(ffi.lib).get("kernel"), ffi.lib.LLVMPY_GetVersionInfo() > 0)
        from numba import njit
        print("numba:", njit(lambda x: x + 1)(1))
    """
    pytest.importorskip("llvmlite")
    done = run_python(code)
    assert "before: _lib_fn_wrapper" in done.stdout, done.stderr
    assert "after: None True" in done.stdout and "numba: 2" in done.stdout, done.stderr

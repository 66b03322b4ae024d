"""Who makes text of an engine's tokens, and which token ends an answer."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slm_vllm.config.schema import GenerationConfig, HardwareConfig
from slm_vllm.engines import vllm_offline
from slm_vllm.engines.fork_server import SPAWN_VARIABLE
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.monitoring.device import Device
from slm_vllm.types import AuxiliaryTask

SETTINGS = EngineSettings(
    model_path=Path("/m"),
    device=Device("cpu", "CPU"),
    hardware=HardwareConfig(name="cpu"),
    generation=GenerationConfig(max_new_tokens=8),
    dtype="float32",
    max_model_len=128,
    extra={"trust_remote_code": True},
)


class Started:
    """What an engine with these settings told vLLM."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, settings: EngineSettings, release: str = "0.32.0"
    ) -> None:
        self.loaded: list[tuple[Path, bool]] = []
        self.freed: list[str] = []
        self.sampling: dict[str, Any] = {}
        vllm = SimpleNamespace(__version__=release, LLM=self._llm)
        monkeypatch.setattr(vllm_offline, "_import_vllm", lambda: vllm)
        monkeypatch.setattr(vllm_offline, "installed_vllm", lambda: release)
        monkeypatch.setattr(vllm_offline, "engine_argument_names", lambda: frozenset())
        monkeypatch.setattr(vllm_offline, "vllm_arguments", lambda *_: ({}, []))
        monkeypatch.setattr(vllm_offline, "_check_host_memory", lambda _: None)
        monkeypatch.setattr(vllm_offline, "prompt_maker", lambda: list)
        monkeypatch.setattr(vllm_offline, "kv_cache_tokens", lambda _: 1)
        monkeypatch.setattr(vllm_offline, "load_tokenizer", self._load_tokenizer)
        monkeypatch.setattr(vllm_offline, "_sampling_parameters", self._sampling)
        monkeypatch.setattr(vllm_offline, "free_device", self.freed.append)
        self.engine = VllmEngine(settings)
        self.engine.start()

    def _llm(self, **arguments: Any) -> Any:
        self.arguments = arguments
        os.environ[SPAWN_VARIABLE] = "spawn"  # as vLLM does on a CPU
        return SimpleNamespace(get_tokenizer=lambda: "vLLM's", llm_engine=SimpleNamespace())

    def _load_tokenizer(self, path: Path, *, trust_remote_code: bool) -> Any:
        self.loaded.append((path, trust_remote_code))
        return SimpleNamespace(eos_token_id=17)

    def _sampling(self, settings: EngineSettings, more: dict[str, Any]) -> Any:
        self.sampling = dict(more)


def test_text_is_made_here_and_the_tokenizer_s_end_ends_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = Started(monkeypatch, SETTINGS)
    assert started.arguments == {"skip_tokenizer_init": True}
    assert started.loaded == [(Path("/m"), True)]
    assert started.sampling == {"stop_token_ids": [17]}
    started.engine._auxiliary_sampling(AuxiliaryTask(4))
    assert started.sampling == {"stop_token_ids": [17], "detokenize": False}


@pytest.mark.parametrize("before", [None, "fork"])
def test_engines_of_later_runs_may_be_forked(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SPAWN_VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(SPAWN_VARIABLE, before)
    Started(monkeypatch, SETTINGS)
    assert os.environ.get(SPAWN_VARIABLE) == before


def test_answers_of_a_fixed_length_have_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Started(monkeypatch, replace(SETTINGS, ignore_eos=True)).sampling == {}


@pytest.mark.parametrize(
    ("settings", "release"),
    [
        (replace(SETTINGS, stop=("\n",)), "0.32.0"),  # found in text, step by step
        (replace(SETTINGS, only_answers=("A", "B")), "0.32.0"),  # a grammar of the tokenizer's
        (SETTINGS, "0.9.2"),
    ],
)
def test_vllm_keeps_its_tokenizer(
    settings: EngineSettings, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(monkeypatch, settings, release)
    assert started.arguments == {} and started.sampling == {}
    assert started.engine._tokenizer == "vLLM's" and started.loaded == []


def test_the_next_engine_collects_what_a_closed_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VllmEngine, "_uncollected", False)
    first = Started(monkeypatch, SETTINGS)
    first.engine.close()
    assert first.freed == []
    assert Started(monkeypatch, SETTINGS).freed == ["cpu"]
    assert Started(monkeypatch, SETTINGS).freed == []

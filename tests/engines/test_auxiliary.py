"""Requests that are no questions of the run: asked in their own way, whatever the run samples."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from slm_vllm.config.engine import OpenAIConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.openai_engine import OpenAIEngine
from slm_vllm.engines.versions import weighing_arguments
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.types import AuxiliaryTask, Completion, GenerationRequest
from support.engine_requests import SETTINGS
from support.fake_server import FakeServer

SAMPLED = replace(
    SETTINGS,
    generation=GenerationConfig(n=3, temperature=0.7, logprobs=True, max_new_tokens=9),
    stop=("\n",),
)
TURN = [{"role": "user", "content": "1"}]
WRITE = GenerationRequest("w", [1, 7], TURN, AuxiliaryTask(max_new_tokens=5))
WEIGH = GenerationRequest("y", [1, 8], TURN, AuxiliaryTask(either=((4, 5), (6,))))


class Core:
    """vLLM's engine that answers each request with one token."""

    def __init__(self, told: dict[int, float]) -> None:
        self.taken: dict[str, Any] = {}
        self._told = {token: SimpleNamespace(logprob=value) for token, value in told.items()}

    def add_request(self, name: str, prompt: list[int], sampling: Any) -> None:
        self.taken[name] = sampling

    def step(self) -> list[Any]:
        answer = SimpleNamespace(
            token_ids=[4],
            text="detokenized",
            finish_reason="length",
            cumulative_logprob=-1.0,
            logprobs=[self._told],
        )
        return [
            SimpleNamespace(
                request_id=name,
                finished=True,
                prompt_token_ids=[1],
                outputs=[answer] * sampling.n,
            )
            for name, sampling in self.taken.items()
        ]

    def abort_request(self, names: list[str]) -> None:
        """Nothing to drop."""


class Sampling(SimpleNamespace):
    """Takes what vLLM's own takes."""

    def __init__(self, logprob_token_ids: object = None, **more: Any) -> None:
        super().__init__(logprob_token_ids=logprob_token_ids, **more)


class EarlySampling(SimpleNamespace):
    def __init__(self, allowed_token_ids: object = None, **more: Any) -> None:
        super().__init__(allowed_token_ids=allowed_token_ids, **more)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands for the package, of which nothing but the sampling is asked."""
    package, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    package.SamplingParams = Sampling  # type: ignore[attr-defined]
    params.RequestOutputKind = SimpleNamespace(FINAL_ONLY=2)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    return package


def answered(core: Core, *requests: GenerationRequest) -> dict[str, Completion]:
    from slm_vllm.engines.vllm_offline import _sampling_parameters

    engine = VllmEngine(SAMPLED)
    engine._llm = SimpleNamespace(llm_engine=core)
    engine._prompt_of = list
    engine._sampling = _sampling_parameters(SAMPLED)
    return {found.request_id: found for found in engine.stream(requests)}


def test_each_request_of_a_stream_is_sampled_in_its_own_way(vllm: ModuleType) -> None:
    core = Core({4: -1.0, 5: -2.0, 6: -3.0})
    found = answered(core, WRITE, GenerationRequest("q", [1], TURN), WEIGH)
    own = core.taken["q"]
    assert (own.n, own.temperature, own.max_tokens, own.stop) == (3, 0.7, 9, ["\n"])
    for name, longest in (("w", 5), ("y", 1)):
        taken = core.taken[name]
        assert (taken.n, taken.temperature, taken.max_tokens, taken.stop) == (1, 0.0, longest, None)
        assert found[name].samples == ()
        assert found[name].text == "detokenized"  # as of all in a run with stop strings
    assert core.taken["w"].logprobs is None
    assert (core.taken["y"].logprob_token_ids, core.taken["y"].logprobs) == ([4, 5, 6], 3)
    assert len(found["q"].samples) == 3 and found["q"].margin is found["w"].margin is None
    # The probabilities of a word's forms add up.
    assert found["y"].margin == pytest.approx(math.log((math.e**-1 + math.e**-2) / math.e**-3))


@pytest.mark.parametrize("far", [-1e4, -80.0])
def test_a_margin_of_tokens_that_are_next_to_impossible(vllm: ModuleType, far: float) -> None:
    found = answered(Core({4: far, 5: far, 6: far - 1}), WEIGH)
    assert found["y"].margin == pytest.approx(math.log(2) + 1)


def test_where_a_token_is_not_told_there_is_no_margin(vllm: ModuleType) -> None:
    assert answered(Core({4: -1.0, 6: -3.0}), WEIGH)["y"].margin is None


def test_early_releases_are_left_no_other_tokens(vllm: ModuleType) -> None:
    vllm.SamplingParams = EarlySampling  # type: ignore[attr-defined]
    assert weighing_arguments([4, 5]) == {"logprobs": 2, "allowed_token_ids": [4, 5]}


def test_the_installed_vllm_knows_the_arguments() -> None:
    sampling = pytest.importorskip("vllm").SamplingParams
    assert sampling(**weighing_arguments([4, 5])).logprobs == 2


def test_a_server_is_told_the_same() -> None:
    with FakeServer() as server:
        engine = OpenAIEngine(SAMPLED, OpenAIConfig(base_url=(server.url,)))
        with engine:
            engine.start()
            (found,) = engine.stream([WRITE])
    assert found.error is None and found.samples == ()
    (body,) = server.bodies
    assert (body["max_tokens"], body["temperature"]) == (5, 0.0)
    assert not {"n", "stop", "logprobs", "seed"} & set(body)

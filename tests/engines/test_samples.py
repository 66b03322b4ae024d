"""Several answers to a request, and how probable each was, from either engine."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from slm_vllm.config.engine import OpenAIConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.openai_answers import Failed, read_completion
from slm_vllm.engines.openai_engine import OpenAIEngine
from slm_vllm.engines.settings import request_seed, sampling_arguments
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.models.thinking import answer_decoder
from slm_vllm.types import Completion, GenerationRequest
from support.engine_requests import SETTINGS
from support.fake_server import FakeServer

REQUEST = GenerationRequest("r0", [1, 7], [{"role": "user", "content": "1"}])
SEVERAL = replace(SETTINGS, generation=GenerationConfig(n=3, temperature=0.7, logprobs=True))


def test_one_answer_has_the_seed_of_the_run_and_several_have_their_own() -> None:
    one = replace(SETTINGS, generation=GenerationConfig(temperature=0.7), seed=7)
    assert [request_seed(one, name) for name in "ab"] == [7, 7]
    assert request_seed(SETTINGS, "a") is None  # greedy
    seeds = [request_seed(SEVERAL, name) for name in "ab"]
    assert seeds[0] != seeds[1]
    assert seeds == [request_seed(SEVERAL, name) for name in "ab"]
    assert seeds != [request_seed(replace(SEVERAL, seed=8), name) for name in "ab"]
    assert all(seed is not None and 0 <= seed < 2**31 - 3 for seed in seeds)


def test_what_vllm_is_asked_for() -> None:
    assert sampling_arguments(SEVERAL)["n"] == 3
    assert sampling_arguments(SEVERAL)["logprobs"] == 0
    assert sampling_arguments(SETTINGS)["logprobs"] is None


class Core:
    """vLLM's engine with three answers at once to each request."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []

    def add_request(self, name: str, prompt: list[int], sampling: Any) -> None:
        self.taken.append((name, sampling.seed))

    def step(self) -> list[Any]:
        answers = [
            SimpleNamespace(token_ids=[i] * (i + 1), finish_reason="stop", cumulative_logprob=-i)
            for i in range(3)
        ]
        return [
            SimpleNamespace(
                request_id=name, finished=True, prompt_token_ids=[1, 2], outputs=answers
            )
            for name, _ in self.taken[-2:]
        ]

    def abort_request(self, names: list[str]) -> None:
        """Nothing to drop."""


class Tokenizer:
    def batch_decode(self, token_ids: list[list[int]], **_: Any) -> list[str]:
        return [str(ids) for ids in token_ids]


def test_answers_of_vllm() -> None:
    engine, core = VllmEngine(SEVERAL), Core()
    engine._llm = SimpleNamespace(llm_engine=core)
    engine._prompt_of = list
    engine._decode = answer_decoder(Tokenizer())
    engine._sampling = SimpleNamespace(seed=42)
    found = list(engine.stream([GenerationRequest("a", [1]), GenerationRequest("b", [2])]))
    assert [one.request_id for one in found] == ["a", "b"]
    seeds = [request_seed(SEVERAL, name) for name in "ab"]
    assert [seed for _, seed in core.taken] == seeds
    assert engine._sampling.seed == 42
    for one, seed in zip(found, seeds, strict=True):
        assert one.text == "[0]" and one.n_completion_tokens == 6
        assert [sample.text for sample in one.samples] == ["[0]", "[1, 1]", "[2, 2, 2]"]
        assert [sample.n_completion_tokens for sample in one.samples] == [1, 2, 3]
        assert [sample.logprob for sample in one.samples] == [0, -1, -2]
        assert seed is not None
        assert [sample.seed for sample in one.samples] == [seed, seed + 1, seed + 2]


def choices(*texts: str, chat: bool = False) -> list[dict[str, Any]]:
    """Answers whose tokens are their words, each with a log-probability of -0.5."""
    found = []
    for number, text in enumerate(texts):
        values = [-0.5] * len(text.split())
        said = {"message": {"content": text}} if chat else {"text": text}
        logprobs = (
            {"content": [{"token": "t", "logprob": value} for value in values]}
            if chat
            else {"token_logprobs": values}
        )
        found.append({"index": number, "finish_reason": "stop", "logprobs": logprobs, **said})
    return found


@pytest.mark.parametrize("chat", [False, True])
def test_answers_of_a_server(chat: bool) -> None:
    content = {"choices": choices("a b", "c", "d e f", chat=chat)[::-1]}
    body = {"n": 3, "logprobs": 1, "seed": 5}
    found = read_completion(REQUEST, content, body)
    assert found.text == "a b"
    assert [one.text for one in found.samples] == ["a b", "c", "d e f"]
    assert [one.logprob for one in found.samples] == [-1.0, -0.5, -1.5]
    assert [one.n_completion_tokens for one in found.samples] == [2, 1, 3]
    assert [one.seed for one in found.samples] == [5, 6, 7]
    assert {one.is_whole for one in found.samples} == {chat}


def test_servers_without_several_answers_or_probabilities_are_found_out() -> None:
    with pytest.raises(Failed, match=r"1 of the 3 answers that generation\.n=3") as caught:
        read_completion(REQUEST, {"choices": choices("a")}, {"n": 3})
    assert caught.value.trouble == "refused"
    bare = [{"text": "a", "index": 0}]
    with pytest.raises(Failed, match="without the log-probabilities"):
        read_completion(REQUEST, {"choices": bare}, {"logprobs": 1})


def test_what_was_not_asked_for_is_not_kept() -> None:
    assert read_completion(REQUEST, {"choices": choices("a")}, {}).samples == ()


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_server_is_asked_for_them(endpoint: str) -> None:
    chat = endpoint == "chat"
    script = FakeServer(
        lambda number, body: (200, {}, {"choices": choices("a", "b", "c", chat=chat)})
    )
    with script as server:
        config = OpenAIConfig(name="openai", base_url=(server.url,), endpoint=endpoint)
        with OpenAIEngine(SEVERAL, config) as engine:
            engine.start()
            (found,) = engine.stream([REQUEST])
    assert isinstance(found, Completion)
    assert [one.text for one in found.samples] == ["a", "b", "c"]
    body = server.bodies[-1]
    assert (body["n"], body["seed"]) == (3, request_seed(SEVERAL, "r0"))
    assert body["logprobs"] is (True if chat else 1) or body["logprobs"] == 1
    assert all("n" not in proof for proof in server.proofs)

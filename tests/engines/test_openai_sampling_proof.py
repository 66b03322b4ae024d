"""Whether a server takes the run's sampling: what is found out, and what becomes of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slm_vllm.config.engine import OpenAIConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.openai_answers import Failed
from slm_vllm.engines.openai_engine import OpenAIEngine
from slm_vllm.engines.openai_sampling_proof import Proof, proof_by_logprobs, prove_sampling
from slm_vllm.errors import EngineError
from support.engine_requests import QUICK, SETTINGS, requests
from support.fake_server import CARD, FakeServer, Reply, Script, usual

pytestmark = pytest.mark.slow

PLAIN_CARD = {"id": "tiny", "object": "model", "owned_by": "me"}
SAMPLED = replace(SETTINGS, generation=GenerationConfig(temperature=0.7))


def proof_of(
    answer: Callable[[Mapping[str, Any]], str], sent: Mapping[str, Any], temperature: float = 0.0
) -> Proof:
    """The proof of a server that is a function of the fields that it is sent."""

    async def ask(fields: Mapping[str, Any]) -> str:
        return answer({"temperature": 0.0, **sent, **fields})

    async def proven() -> Proof:
        return await prove_sampling(ask, await ask({}), sent, temperature)

    return asyncio.run(proven())


PASSES: dict[str, Callable[[float], bool]] = {
    "everything": lambda value: True,
    "nothing": lambda value: False,
    "no neutral value": lambda value: value != 1.0,
    "none below one": lambda value: value >= 1.0,
    "small values": lambda value: value < 1.9,
}


@given(
    wanted=st.sampled_from([1.0, 1.1, 1.3, 1.7]),
    default=st.sampled_from([1.0, 1.05, 1.3, 2.0]),
    passes=st.sampled_from(sorted(PASSES)),
)
@example(wanted=1.0, default=1.3, passes="no neutral value")
def test_what_is_proven_holds_and_what_is_disproven_does_not(
    wanted: float, default: float, passes: str
) -> None:
    """A gateway lets some values pass; the server behind it has a default for the rest."""

    def penalty(value: float) -> float:
        return value if PASSES[passes](value) else default

    sent = {"repetition_penalty": wanted}
    found = proof_of(lambda fields: f"{penalty(fields['repetition_penalty']):.3f}", sent)
    if found.outcome == "proven":
        assert penalty(wanted) == wanted
    elif found.outcome == "disproven":
        assert penalty(wanted) != wanted
    else:
        # Where the default is the very value that is tried, nothing is seen to change.
        assert passes not in ("everything", "no neutral value") or default == 2.0


@pytest.mark.parametrize("favoured", [0, 1])
def test_a_tie_between_two_tokens_disproves_nothing(favoured: int) -> None:
    """A penalty a millionth off decides it, to one side or the other."""

    def answer(fields: Mapping[str, Any]) -> str:
        penalty = fields["repeat_penalty"]
        tie = favoured if penalty == 1 else int(penalty > 1)
        return f"{penalty:.3f} {tie}"

    assert proof_of(answer, {"repeat_penalty": 1.0}).outcome == "proven"


@pytest.mark.parametrize("ignored", ["top_k", "min_p", "top_p", None])
def test_each_choice_among_tokens_is_seen_to_arrive(ignored: str | None) -> None:
    alone = {"top_k": 1, "min_p": 1.0, "top_p": 0.01}

    def answer(fields: Mapping[str, Any]) -> str:
        arrived = {name: fields[name] for name in alone if name != ignored}
        one_token = any(arrived[name] == alone[name] for name in arrived)
        greedy = fields["temperature"] == 0 or one_token
        return f"{fields['repetition_penalty']:.3f} {'' if greedy else 'chance'}"

    sent = {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0, "top_p": 1.0}
    found = proof_of(answer, sent, temperature=0.7)
    assert found.outcome == ("unproven" if ignored else "proven")
    assert ignored is None or f"{ignored}={alone[ignored]}" in found.reason


def test_values_that_are_refused_prove_nothing() -> None:
    def answer(fields: Mapping[str, Any]) -> str:
        if fields["repetition_penalty"] != 1.0:
            raise Failed("request", "only 1 is allowed")
        return "fixed"

    assert proof_of(answer, {"repetition_penalty": 1.0}).outcome == "unproven"


def behind(default: float, drops: Callable[[float], bool]) -> Script:
    """The answers of a server whose gateway drops values of a penalty."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        value = body.get("repetition_penalty", default)
        return 200, {}, usual(body | {"repetition_penalty": default if drops(value) else value})

    return script


def start(
    server: FakeServer, told: list[str], run: Any = SETTINGS, **section: Any
) -> dict[str, Any]:
    config = OpenAIConfig(base_url=(server.url,), **section)
    with OpenAIEngine(run, config, replace(QUICK, patience=60.0)) as engine:
        engine.say = told.append
        found = dict(engine.start().details)
        assert len(list(engine.stream(requests(3)))) == 3
    return found


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("run", [SETTINGS, SAMPLED, replace(SETTINGS, stop=("under",))])
def test_a_server_that_does_as_it_is_told_is_proven_in_silence(run: Any, endpoint: str) -> None:
    told: list[str] = []
    with FakeServer() as server:
        assert start(server, told, run, endpoint=endpoint)["sampling_proof"] == {
            server.url: "proven"
        }
    assert not told
    assert not any("stop" in body for body in server.proofs)
    assert [body["temperature"] for body in server.proofs[:4]] == [0.0] * 4


def test_a_gateway_that_drops_the_penalty_is_said_and_noted() -> None:
    run = replace(SETTINGS, model_defaults={"repetition_penalty": 1.3})
    told: list[str] = []
    dropping = behind(1.3, lambda value: True)
    with FakeServer(cards=[CARD | {"owned_by": "gateway"}], proof=dropping) as server:
        details = start(server, told, run)
    (line,) = told
    assert "cannot be proven" in line and "has repetition_penalty=1.3" in line
    assert details["sampling_proof"][server.url].startswith("unproven: repetition_penalty changes")


COMPLETION = {"token_logprobs": [-0.1, -2.0], "top_logprobs": [{" a": -0.1}, {" b": -0.9}]}
CHAT = {
    "content": [
        {"logprob": -0.1, "top_logprobs": [{"logprob": -0.1}]},
        {"logprob": -2.0, "top_logprobs": [{"logprob": -2.0}, {"logprob": -0.9}]},  # as vLLM
    ]
}


@pytest.mark.parametrize(
    ("endpoint", "told"), [("completions", COMPLETION), ("completions", CHAT), ("chat", CHAT)]
)
def test_a_penalty_of_a_server_that_drops_ours_shows_in_its_logprobs(
    endpoint: str, told: dict[str, Any]
) -> None:
    """The second token is not the likeliest."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        answer = usual(body | {"repetition_penalty": 1.3})
        answer["choices"][0]["logprobs"] = told if body.get("logprobs") else None
        return 200, {}, answer

    with FakeServer(proof=script) as server:
        with pytest.raises(EngineError, match=r"changes nothing.*1 of 2 tokens.*own logprobs"):
            start(server, [], endpoint=endpoint)
        assert not server.bodies
        fields = {"logprobs": True, "top_logprobs": 2} if endpoint == "chat" else {"logprobs": 1}
        assert server.proofs[-1].items() >= fields.items()
        # What the user asks for may be the reason.
        start(server, [], endpoint=endpoint, extra_body={"min_tokens": 3})


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        [],
        {"content": None},
        {"content": [{"logprob": None, "top_logprobs": []}]},
        {"token_logprobs": [-1.0], "top_logprobs": None},
        {"token_logprobs": [-1.0, -1.0], "top_logprobs": [{"a": -1.0}]},
        {"token_logprobs": [-1.001], "top_logprobs": [{"a": -1.0}]},
        {"token_logprobs": ["x"], "top_logprobs": [{"a": -1.0}]},
        {"token_logprobs": [], "top_logprobs": []},
    ],
)
def test_logprobs_out_of_form_or_of_the_likeliest_tokens_disprove_nothing(told: Any) -> None:
    unproven = Proof("unproven", "unseen")
    assert proof_by_logprobs(unproven, {"choices": [{"logprobs": told}]}) == unproven
    for content in (None, [], {}, {"choices": None}, {"choices": [None]}, {"choices": [told]}):
        assert proof_by_logprobs(unproven, content) == unproven


def test_a_gateway_that_drops_neutral_values_alone_ends_the_run_before_its_first_question() -> None:
    dropping = behind(1.3, lambda value: value == 1.0)
    with FakeServer(proof=dropping) as server:
        with pytest.raises(EngineError, match=r"not made with this run's sampling.*extra_body"):
            start(server, [])
        assert not server.bodies
        body = {"repetition_penalty": 1.000001}
        assert start(server, [], extra_body=body)["sampling_proof"] == {server.url: "proven"}


def test_a_field_that_the_user_names_is_the_one_that_is_proven() -> None:
    """A gateway in front of llama.cpp: nobody knows `repetition_penalty`."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        body.pop("repetition_penalty", None)
        return 200, {}, usual(body)

    with FakeServer(cards=[PLAIN_CARD], proof=script) as server:
        found = start(server, [], extra_body={"repeat_penalty": 1.0}, endpoint="chat")
    assert found["sampling_proof"] == {server.url: "proven"}


@pytest.mark.parametrize(
    ("text", "reason"), [("", "is empty"), (None, "two answers to one question")]
)
def test_a_server_whose_answers_show_nothing(text: str | None, reason: str) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return 200, {}, {"choices": [{"text": f"draw {number}" if text is None else text}]}

    told: list[str] = []
    with FakeServer(proof=script) as server:
        start(server, told)
    assert reason in told[0]


def test_a_server_that_fails_the_test_question_is_asked_again_when_it_is_back() -> None:
    down: Reply = (500, {}, {"error": "no backend"})
    told: list[str] = []
    with FakeServer(
        lambda number, body: down if number < 20 else None,
        proof=lambda number, body: down if number == 0 else None,
    ) as server:
        details = start(server, told)
    assert "not answered (status 500: no backend)" in details["sampling_proof"][server.url]
    assert "cannot be proven" in told[0]
    assert f"{server.url}: answers are made with this run's sampling" in told


def test_a_server_that_is_back_and_proves_as_little_as_before_says_nothing_more() -> None:
    down: Reply = (500, {}, {"error": "no backend"})
    told: list[str] = []
    with FakeServer(
        lambda number, body: down if number < 20 else None, proof=behind(1.3, lambda value: True)
    ) as server:
        start(server, told)
        assert len(server.proofs) > 6  # it was asked again
    assert ["sampling" in line for line in told] == [True] + [False] * (len(told) - 1)


def test_a_key_that_only_generation_needs_is_pointed_at_when_the_test_question_is_refused() -> None:
    refuses: Reply = (400, {}, {"error": {"message": "No connected db."}})
    told: list[str] = []
    with FakeServer(lambda number, body: refuses, proof=lambda number, body: refuses) as server:
        start(server, told)
    assert "No connected db" in told[0] and "--api-key-env" in told[0]

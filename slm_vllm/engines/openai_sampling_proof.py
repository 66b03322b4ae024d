"""Tests whether a server applies the run's sampling settings, by asking it for short answers.

A server's list of models does not say what stands behind it. A gateway may drop fields, and the
server behind it then fills them from its own defaults, such as the model's
`generation_config.json`. So one short greedy answer is requested again under other settings. If a
field changes the answer, the field arrives. If a value next to the run's, which nothing would
take for a default and drop, gives the same answer, the run's value is applied. Where neither can
be seen, the server's own logprobs may still show that another value is applied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slm_vllm.engines.openai_answers import Failed
from slm_vllm.types import GenerationRequest

TEST_PROMPT = "Once upon a time, there was a"
_TURN = {"role": "user", "content": f"Go on: {TEST_PROMPT}"}
TEST_REQUEST = GenerationRequest("proof", [], [_TURN])
TEST_TOKENS = 16
LOGPROBS: dict[str, dict[str, Any]] = {
    "completions": {"logprobs": 1},
    "chat": {"logprobs": True, "top_logprobs": 2},  # vLLM's first is the chosen one, in any case
}
"""The fields that ask for the probability of each token and of the likeliest, by end point."""
PENALTIES = ("repetition_penalty", "repeat_penalty")
# Under these a sampled answer is the greedy one.
_ONE_TOKEN: dict[str, Any] = {"top_k": 1, "min_p": 1.0, "top_p": 0.01}
_LESS_LIKELY = 0.01  # in the logarithm: more than rounding
_BESIDE = 1e-6  # of a penalty: too little to change a token, unless two are equally likely


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found.

    Attributes:
        outcome: Whether answers are made with the run's sampling; "unproven" where that cannot be
            seen.
        reason: Why it is not proven.
    """

    outcome: Literal["proven", "unproven", "disproven"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}" if self.reason else self.outcome


Ask = Callable[[Mapping[str, Any]], Awaitable[str]]


async def prove_sampling(
    ask: Ask, usual: str, sent: Mapping[str, Any], temperature: float
) -> Proof:
    """Compares greedy answers under the run's sampling with answers under other values.

    Args:
        ask: Gives the text of the answer to one question, at temperature 0 but for the fields that
            it is given.
        usual: What it gives for none.
        sent: The fields of the run's requests, those that the user names first.
        temperature: Of the run; above 0 what chooses among tokens is looked at as well.

    Raises:
        Failed: There is no answer.
    """
    if not usual.strip():
        return Proof("unproven", "its answer to the test question is empty")
    if await ask({}) != usual:
        return Proof("unproven", "at temperature 0 it gives two answers to one question")
    penalty = await _prove_penalty(ask, usual, sent)
    if penalty.outcome == "disproven" or temperature <= 0:
        return penalty
    doubts = [penalty.reason] if penalty.reason else []
    for name, value in _ONE_TOKEN.items():
        if name not in sent:
            doubts.append(f"it refuses {name}")
        elif await _answer(ask, {"temperature": temperature, name: value}) != usual:
            doubts.append(f"{name}={value} does not have it choose the likeliest token")
    return Proof("unproven" if doubts else "proven", "; ".join(doubts))


def proof_by_logprobs(unproven: Proof, content: Any) -> Proof:
    """Disproves what is not proven, where a greedy answer leaves the likeliest tokens aside.

    vLLM and llama.cpp tell the probabilities that the model gives, before penalties. Where others
    tell those that are left after them, nothing is found.

    Args:
        unproven: What was found so far.
        content: The body of the response.
    """
    try:
        found = content["choices"][0]["logprobs"]
        if "content" in found:
            chosen = [token["logprob"] for token in found["content"]]
            likeliest = [max(t["logprob"] for t in one["top_logprobs"]) for one in found["content"]]
        else:
            chosen = found["token_logprobs"]
            likeliest = [max(token.values()) for token in found["top_logprobs"]]
        losses = [best - own for own, best in zip(chosen, likeliest, strict=True)]
        n_aside = sum(loss > _LESS_LIKELY for loss in losses)
    except (LookupError, TypeError, AttributeError, ValueError):
        return unproven
    if not n_aside:
        return unproven
    return Proof(
        "disproven",
        f"{unproven.reason}; and {n_aside} of {len(losses)} tokens at temperature 0 are not the "
        "likeliest, by its own logprobs",
    )


def unproven_message(url: str, proof: Proof, contrary: Mapping[str, Any]) -> str:
    """What to tell the user of a server whose sampling cannot be seen.

    Args:
        url: The server.
        proof: What was found.
        contrary: Defaults in the model's own `generation_config.json` that the run does not want.
    """
    found = ", ".join(f"{name}={value}" for name, value in contrary.items())
    known = f" The model's generation_config.json has {found}." if found else ""
    return (
        f"{url}: it cannot be proven that answers are made with this run's sampling: "
        f"{proof.reason}.{known} A value that the server has by itself would change the scores; "
        "vLLM has none when it is started with --generation-config vllm"
    )


def disproven_message(url: str, proof: Proof) -> str:
    """Why a server cannot be used that takes other sampling than the run's."""
    return (
        f"{url}: answers are not made with this run's sampling: {proof.reason}. Start what serves "
        "the model without sampling defaults (vLLM: --generation-config vllm), or send a value "
        "that is let through, with engine.extra_body.NAME=VALUE"
    )


async def _prove_penalty(ask: Ask, usual: str, sent: Mapping[str, Any]) -> Proof:
    name = next((name for name in sent if name in PENALTIES), None)
    if name is None:
        return Proof("unproven", f"it refuses {PENALTIES[0]}")
    value = sent[name]
    if not isinstance(value, (int, float)):
        return Proof("unproven", f"{name} is not a number")
    if await _answer(ask, {name: 2.0 if value < 1.5 else 0.5}) in (usual, None):
        return Proof("unproven", f"{name} changes nothing there, whatever its value")
    beside = set()
    # Of two tokens that are equally likely to the last bit, each side chooses another one.
    for factor in (1 + _BESIDE, 1 - _BESIDE):
        beside.add(await _answer(ask, {name: value * factor}))
        if usual in beside:
            return Proof("proven")
    if None in beside:
        return Proof("unproven", f"{name} is refused where it is not round")
    return Proof(
        "disproven",
        f"{name}={value:g} gets another answer than {name}={value * (1 + _BESIDE):.9g}: another "
        "value is applied",
    )


async def _answer(ask: Ask, fields: Mapping[str, Any]) -> str | None:
    """The answer under other values of fields; None if they are refused."""
    try:
        return await ask(fields)
    except Failed as failure:
        if failure.trouble != "request":
            raise
        return None

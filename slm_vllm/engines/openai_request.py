"""What a request holds beside its prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from slm_vllm.engines.openai_models import Served
from slm_vllm.engines.settings import EngineSettings

_NEUTRAL: dict[str, Any] = {"top_p": 1.0, "top_k": None, "min_p": 0.0, "repetition_penalty": 1.0}
_GREEDY_TOO = ("repetition_penalty",)  # the others choose among tokens, of which greedy takes one


def request_body(
    settings: EngineSettings, served: Served, without: Collection[str] = ()
) -> dict[str, Any]:
    """Everything of a request but its prompt and the user's own fields.

    vLLM fills what is not said from the model's own generation_config.json, where a local run
    takes the neutral value; llama.cpp has sampling defaults of its own. Both are told everything
    that matters. Other servers refuse fields they do not know, and get only what is not neutral
    and what the model's defaults would change.

    Args:
        settings: The run's settings.
        served: What the server is.
        without: Neutral fields that this server has refused.
    """
    generation = settings.generation
    body: dict[str, Any] = {
        "max_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
    }
    if settings.stop:
        body["stop"] = list(settings.stop)
    if generation.temperature > 0:
        body["seed"] = settings.seed
    extra = {name: v for name, v in _extra(settings, served).items() if name not in without}
    return {**body, "extra_body": extra}


def contrary_defaults(settings: EngineSettings) -> dict[str, Any]:
    """Sampling defaults of the model that would give this run other answers.

    A server that applies `generation_config.json` uses them for fields that it is not sent.
    """
    found = {}
    for name in _NEUTRAL:
        matters = settings.generation.temperature > 0 or name in _GREEDY_TOO
        default = settings.model_defaults.get(name)
        if matters and default is not None and default != _value(settings, name):
            found[name] = default
    return {name: default for name, default in found.items() if default != _NEUTRAL[name]}


def neutral_fields(settings: EngineSettings, body: Mapping[str, Any]) -> set[str]:
    """Fields of a body that say what most servers do anyway."""
    own = {*_NEUTRAL, "repeat_penalty"} & set(body.get("extra_body", {}))
    return {n for n in own if _value(settings, n) == _NEUTRAL.get(n)}


def _extra(settings: EngineSettings, served: Served) -> dict[str, Any]:
    sampled = settings.generation.temperature > 0
    top_k = _value(settings, "top_k")
    penalty = _value(settings, "repetition_penalty")
    if served.make == "vllm":
        extra = {"top_k": -1 if top_k is None else top_k, "repetition_penalty": penalty}
        return extra | ({"min_p": 0.0} if sampled else {})
    if served.make == "llama.cpp":
        extra = {"top_k": top_k or 0, "min_p": 0.0} if sampled else {}
        return extra | ({"repeat_penalty": penalty} if penalty != 1.0 else {})
    extra = {}
    contrary = contrary_defaults(settings)
    if top_k is not None or "top_k" in contrary:
        extra["top_k"] = -1 if top_k is None else top_k
    if penalty != 1.0 or "repetition_penalty" in contrary:
        extra["repetition_penalty"] = penalty
    if "min_p" in contrary:
        extra["min_p"] = 0.0
    return extra


def _value(settings: EngineSettings, name: str) -> Any:
    """What the run has for a field; a run knows no `min_p`."""
    name = {"repeat_penalty": "repetition_penalty"}.get(name, name)
    return getattr(settings.generation, name, _NEUTRAL.get(name))

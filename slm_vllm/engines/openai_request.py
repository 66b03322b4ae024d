"""The body of a request, without its prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from slm_vllm.engines.openai_models import Served
from slm_vllm.engines.settings import EngineSettings

_NEUTRAL: dict[str, Any] = {"top_p": 1.0, "top_k": None, "min_p": 0.0, "repetition_penalty": 1.0}
CHOICES = ("structured_outputs", "guided_choice")  # from vLLM 0.11 on, and until then
_GREEDY_TOO = ("repetition_penalty",)  # the others choose among tokens, of which greedy takes one


def request_body(
    settings: EngineSettings,
    served: Served,
    without: Collection[str] = (),
    *,
    chat: bool = False,
) -> dict[str, Any]:
    """Everything of a request but its prompt and the user's own fields.

    Servers fill what is not said from the model's generation_config.json or from defaults of their
    own, where a local run takes the neutral value. So each is told everything that matters, in its
    own words; what one refuses that is neutral is left out.

    Args:
        settings: The run's settings.
        served: What the server is.
        without: Neutral fields that this server has refused.
        chat: Whether it gets chats, for which log-probabilities are asked for in another form.
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
    if generation.n > 1:
        body["n"] = generation.n
    if generation.logprobs:
        body["logprobs"] = True if chat else 1
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
    """Fields of a body that say what most servers do anyway, or that an answer may lack."""
    sent = set(body.get("extra_body", {}))
    own = {*_NEUTRAL, "repeat_penalty"} & sent
    return {n for n in own if _value(settings, n) == _NEUTRAL.get(n)} | (set(CHOICES) & sent)


def _extra(settings: EngineSettings, served: Served) -> dict[str, Any]:
    is_llama = served.make == "llama.cpp"
    penalty = "repeat_penalty" if is_llama else "repetition_penalty"
    extra = {penalty: _value(settings, penalty)}
    if settings.generation.temperature > 0 or served.make == "vllm":
        top_k = _value(settings, "top_k")
        extra["top_k"] = top_k if top_k is not None else 0 if is_llama else -1
    extra |= {"min_p": 0.0} if settings.generation.temperature > 0 else {}
    return extra | (_choices(settings) if served.make == "vllm" else {})


def _choices(settings: EngineSettings) -> dict[str, Any]:
    """The only answers there may be, in both forms: a release passes over the one it lacks."""
    if not settings.only_answers:
        return {}
    choices = list(settings.only_answers)
    return dict(zip(CHOICES, ({"choice": choices}, choices), strict=True))


def _value(settings: EngineSettings, name: str) -> Any:
    """What the run has for a field; a run knows no `min_p`."""
    name = {"repeat_penalty": "repetition_penalty"}.get(name, name)
    return getattr(settings.generation, name, _NEUTRAL.get(name))

"""Finds the run's model in a server's list of models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slm_vllm.engines.openai_answers import shortened, whole

# The same length under the names that vLLM, llama.cpp, LM Studio, TGI, OpenRouter and others give
# it, in their cards and one level down (llama.cpp's `meta`).
_LENGTHS = (
    "max_model_len",
    "n_ctx",
    "loaded_context_length",
    "max_context_length",
    "context_length",
    "context_window",
    "max_seq_len",
    "max_total_tokens",
)
_NESTED = ("meta", "parameters", "details", "limits")

Make = Literal["vllm", "llama.cpp", "other"]


class Unusable(Exception):
    """A server that cannot serve the run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of the model.

    Attributes:
        name: The name it knows the model by.
        max_model_len: Longest prompt plus answer in tokens, where it says so.
        make: Which server it is, as far as that changes what it is sent. One that speaks vLLM's
            dialect takes token ids: exactly the prompts of a local run.
    """

    name: str
    max_model_len: int | None = None
    make: Make = "other"

    @property
    def takes_token_ids(self) -> bool:
        """Whether prompts go as token ids."""
        return self.make == "vllm"


def cards_in(content: Any) -> list[dict[str, Any]] | None:
    """The entries of a list of models, in any of the usual forms; None if it is no list."""
    for key in ("data", "models"):
        if isinstance(content, Mapping) and isinstance(content.get(key), list):
            content = content[key]
    if not isinstance(content, list):
        return None
    cards = [{"id": card} if isinstance(card, str) else card for card in content]
    return [dict(card) for card in cards if isinstance(card, Mapping)]


def find_model(
    url: str, cards: list[dict[str, Any]], names: Collection[str], wanted: str | None
) -> Served:
    """The entry of a server's list of models that is the run's model.

    Raises:
        Unusable: There is none; names what is served.
    """
    if len(cards) == 1 and not wanted and not names:
        wanted = str(cards[0].get("id") or cards[0].get("name") or cards[0].get("model"))
    for card in cards:
        found = {str(card[key]) for key in ("id", "root", "name", "model") if card.get(key)}
        if (wanted in found) if wanted else (found & set(names)):
            name = card.get("id") or card.get("name") or card.get("model")
            return Served(whole(str(name)), _context_length(card), _make(card))
    listed = ", ".join(str(card.get("id") or card.get("name")) for card in cards) or "nothing"
    asked = wanted or " or ".join(dict.fromkeys(names)) or "one model alone"
    raise Unusable(
        f"{url}: serves {shortened(listed)}, not {asked}. If one of them is the model of this "
        "run, name it with engine.served_model=NAME"
    )


def model_by_name(cards: list[dict[str, Any]], name: str) -> Served:
    """A model under a name that the list lacks: where there is one alone, it is that one."""
    if len(cards) != 1:
        return Served(name)
    return Served(name, _context_length(cards[0]), _make(cards[0]))


def _make(card: Mapping[str, Any]) -> Make:
    owner = str(card.get("owned_by")).lower()
    if owner == "llamacpp":
        return "llama.cpp"
    if owner == "vllm" or _length(card.get("max_model_len")) is not None:
        return "vllm"
    return "other"


def _context_length(card: Mapping[str, Any]) -> int | None:
    inner = [card[key] for key in _NESTED if isinstance(card.get(key), Mapping)]
    lengths = (_length(place.get(key)) for place in (card, *inner) for key in _LENGTHS)
    return next((length for length in lengths if length is not None), None)


def _length(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        length = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return length if length > 0 else None

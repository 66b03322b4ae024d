"""The markers that models put around their thoughts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slm_vllm.types import ThinkingBlock

BLOCKS = (
    ThinkingBlock("<think>", "</think>"),
    ThinkingBlock("<thinking>", "</thinking>"),
    ThinkingBlock("<thought>", "</thought>"),  # EXAONE Deep
    ThinkingBlock("<reasoning>", "</reasoning>"),
    ThinkingBlock("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThinkingBlock("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ThinkingBlock("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ThinkingBlock("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ThinkingBlock("[THINK]", "[/THINK]"),  # Magistral
    ThinkingBlock("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
)
"""The usual one first."""

WRAPPERS = (
    ThinkingBlock("<answer>", "</answer>"),  # Hunyuan, models trained as DeepSeek-R1-Zero was
    ThinkingBlock("<response>", "</response>"),  # Granite
    ThinkingBlock("<|START_RESPONSE|>", "<|END_RESPONSE|>"),  # Command A
)
"""What some put around the answer behind their thoughts."""

CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
"""Where a message of the harmony format (gpt-oss) names its channel, and begins."""

MARKERS = frozenset(
    (CHANNEL, MESSAGE, *(marker for block in BLOCKS for marker in (block.opening, block.closing)))
)
"""What has to be seen in a completion, though it may be a special token."""

AnswerDecoder = Callable[[list[list[int]]], list[str]]


def answer_decoder(tokenizer: Any) -> AnswerDecoder:
    """What makes texts of new tokens, special ones left out, but for the `MARKERS`.

    Blanks before punctuation stay, as in vLLM's own texts, though some tokenizers ask for less.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {number: str(token) for number, token in added.items() if token.special}
    if MARKERS.isdisjoint(special.values()):
        return lambda texts: _texts(tokenizer, texts, skip_special_tokens=True)
    unseen = {number for number, text in special.items() if text not in MARKERS}

    def decode(texts: list[list[int]]) -> list[str]:
        seen = [[token for token in ids if token not in unseen] for ids in texts]
        return _texts(tokenizer, seen, skip_special_tokens=False)

    return decode


def _texts(tokenizer: Any, ids: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
    return list(
        tokenizer.batch_decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
    )

"""The answer inside a completion, and the thinking around it.

A chat template may open the thinking block itself, at the end of the prompt (DeepSeek-R1-Distill,
Qwen3-Thinking). A completion of such a prompt begins inside the block, so the prompt has to be
known where the completion is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from slm_vllm.types import ThinkingBlock


@dataclass(frozen=True, slots=True)
class ExtractedAnswer:
    """What is scored.

    Attributes:
        text: The answer without thinking blocks and outer blanks.
        unterminated_thinking: The completion ended inside a thinking block: there is no answer,
            and more `generation.max_new_tokens` may give one.
    """

    text: str
    unterminated_thinking: bool = False


_USUAL = ThinkingBlock("<think>", "</think>")
_BLOCKS = (
    _USUAL,
    ThinkingBlock("<thinking>", "</thinking>"),
    ThinkingBlock("<thought>", "</thought>"),  # EXAONE Deep
    ThinkingBlock("<reasoning>", "</reasoning>"),
    ThinkingBlock("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThinkingBlock("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ThinkingBlock("[THINK]", "[/THINK]"),  # Magistral
    ThinkingBlock("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
)


def open_block(text: str) -> ThinkingBlock | None:
    """The thinking block that a text opens and does not close."""
    for block in _BLOCKS:
        if text.rfind(block.opening) > text.rfind(block.closing):
            return block
    return None


def open_block_at_end(text: str) -> ThinkingBlock | None:
    """The thinking block that a text opens with its last word."""
    end = text.rstrip()
    return next((block for block in _BLOCKS if end.endswith(block.opening)), None)


def extract_answer(completion: str, opened: ThinkingBlock | None = None) -> ExtractedAnswer:
    """Takes the answer out of a completion.

    All up to the last closing marker is thinking, whether or not its opening one is part of the
    completion. Behind other text only `<think>` counts as an opening one.

    Args:
        completion: What the model said.
        opened: The block that the prompt left open; the answer begins behind its end.
    """
    block = _block_at_start(completion) or opened or _USUAL
    _, closed, rest = completion.rpartition(block.closing)
    if opened and not closed:
        return ExtractedAnswer("", unterminated_thinking=True)
    if block.opening in rest:
        return ExtractedAnswer(rest.partition(block.opening)[0].strip(), unterminated_thinking=True)
    return ExtractedAnswer(rest.strip())


def _block_at_start(completion: str) -> ThinkingBlock | None:
    """The markers that a completion itself begins with."""
    start = completion.lstrip()
    return next((block for block in _BLOCKS if start.startswith(block.opening)), None)

"""The answer inside a completion, and the thinking around it.

A chat template may open the thinking block itself, at the end of the prompt (DeepSeek-R1-Distill,
Qwen3-Thinking). A completion of such a prompt begins inside the block, so the prompt has to be
known where the completion is read.

Models of the harmony format (gpt-oss) write each message into a channel: thoughts into "analysis",
the answer into "final". Servers leave the markers out, which are special tokens, so that
"analysis...assistantfinalParis" is read too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slm_vllm.models.thinking import BLOCKS, CHANNEL, MESSAGE, WRAPPERS
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


_BLOCK_OPENINGS = tuple(block.opening for block in BLOCKS)
_WRAPPER_OPENINGS = tuple(wrapper.opening for wrapper in WRAPPERS)
HARMONY = ThinkingBlock("analysis", "assistantfinal")
"""What a prompt of the harmony format opens: a message, whose channel the answer names first."""
_HARMONY_PROMPT = "<|start|>assistant"
_CHANNELS = re.compile(r"\s*(analysis|commentary|final)(?!\s)")
_HARMONY_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>")


def open_block(text: str) -> ThinkingBlock | None:
    """The thinking block that a text opens and does not close."""
    if text.rstrip().endswith(_HARMONY_PROMPT):
        return HARMONY
    for block in BLOCKS:
        if text.rfind(block.opening) > text.rfind(block.closing):
            return block
    return None


def open_block_at_end(text: str) -> ThinkingBlock | None:
    """The thinking block that a text opens with its last word."""
    end = text.rstrip()
    if not end.endswith(_BLOCK_OPENINGS):
        return None
    return next((block for block in BLOCKS if end.endswith(block.opening)), None)


def extract_answer(completion: str, opened: ThinkingBlock | None = None) -> ExtractedAnswer:
    """Takes the answer out of a completion.

    All up to the last closing marker is thinking, whether or not its opening one is part of the
    completion. Behind other text only `<think>` counts as an opening one.

    Args:
        completion: What the model said.
        opened: The block that the prompt left open; the answer begins behind its end.
    """
    is_harmony = HARMONY.closing in completion and _CHANNELS.match(completion)
    if CHANNEL in completion or opened == HARMONY or is_harmony:
        return _final_message(completion)
    block = _block_at_start(completion) or opened or BLOCKS[0]
    _, closed, rest = completion.rpartition(block.closing)
    if opened and not closed:
        return ExtractedAnswer("", unterminated_thinking=True)
    if block.opening in rest:
        return ExtractedAnswer(rest.partition(block.opening)[0].strip(), unterminated_thinking=True)
    return ExtractedAnswer(_unwrapped(rest.strip()))


def _unwrapped(answer: str) -> str:
    """The answer without the markers around the whole of it; a cut-off one lacks the second."""
    if not answer.startswith(_WRAPPER_OPENINGS):
        return answer
    wrapper = next(one for one in WRAPPERS if answer.startswith(one.opening))
    inner, _, behind = answer.removeprefix(wrapper.opening).partition(wrapper.closing)
    return answer if behind.strip() else inner.strip()


def _final_message(completion: str) -> ExtractedAnswer:
    """The message in the channel "final", with its markers or without."""
    if CHANNEL in completion:
        _, found, rest = completion.rpartition(f"{CHANNEL}final")
        rest = _HARMONY_ENDS.split(rest.partition(MESSAGE)[2], maxsplit=1)[0]
        return ExtractedAnswer(rest.strip() if found else "", unterminated_thinking=not found)
    channel = _CHANNELS.match(completion)
    if channel is None:  # a model that has the template alone, or a server that takes it apart
        return ExtractedAnswer(_HARMONY_ENDS.split(completion, maxsplit=1)[0].strip())
    if channel[1] == "final":
        return ExtractedAnswer(completion[channel.end() :].strip())
    _, found, rest = completion.rpartition(HARMONY.closing)
    return ExtractedAnswer(rest.strip() if found else "", unterminated_thinking=not found)


def _block_at_start(completion: str) -> ThinkingBlock | None:
    """The markers that a completion itself begins with."""
    start = completion.lstrip()
    if not start.startswith(_BLOCK_OPENINGS):
        return None
    return next((block for block in BLOCKS if start.startswith(block.opening)), None)

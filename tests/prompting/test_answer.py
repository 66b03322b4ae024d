from __future__ import annotations

import pytest

from slm_vllm.prompting.answer import (
    HARMONY,
    ExtractedAnswer,
    extract_answer,
    open_block,
    open_block_at_end,
)
from slm_vllm.types import ThinkingBlock

THINK = ThinkingBlock("<think>", "</think>")


@pytest.mark.parametrize(
    ("completion", "text", "unterminated"),
    [
        ("  Paris \n", "Paris", False),
        ("", "", False),
        ("<think>\nhm\n</think>\n\nParis", "Paris", False),
        ("<think></think>Paris", "Paris", False),
        ("hm, so\n</think>\n\nParis", "Paris", False),  # a server's template opened the block
        ("<think>a</think>Rome<think>b</think> Paris", "Paris", False),
        ("<think>hm, Paris or Ro", "", True),
        ("Paris <think>or perhaps", "Paris", True),
        ("<think>a</think>Paris<think>b", "Paris", True),
        ("<think>a</think>", "", False),
        ("5 < 6 think", "5 < 6 think", False),
        ("[THINK]hm[/THINK]Paris", "Paris", False),
        ("\n<|begin_of_thought|>\nhm, Paris", "", True),
        ("<thought>\nhm\n</thought>\nParis", "Paris", False),
        ("<think>hm</think>\n<answer>\nParis\n</answer>", "Paris", False),
        ("<think>hm</think><answer>Paris", "Paris", False),
        ("<answer>Paris</answer>", "Paris", False),
        ("<answer>A</answer> or B", "<answer>A</answer> or B", False),
        ("the tag <answer>", "the tag <answer>", False),
        ("the tag <reasoning> of XML", "the tag <reasoning> of XML", False),
    ],
)
def test_extract_answer(completion: str, text: str, unterminated: bool) -> None:
    assert extract_answer(completion) == ExtractedAnswer(text, unterminated)


@pytest.mark.parametrize(
    ("completion", "text", "unterminated"),
    [
        ("It could be Paris. Let me", "", True),
        ("", "", True),
        ("hm\n</think>\n\nParis", "Paris", False),
        ("<think>hm</think>Paris", "Paris", False),  # some models open it once more
        ("hm</think>Paris<think>or Rome", "Paris", True),
        ("a </thinking> tag", "", True),
        ("hm</think>", "", False),
        ("[THINK]hm[/THINK]Paris", "Paris", False),  # what it writes itself counts more
        ("[THINK]hm, Paris", "", True),
    ],
)
def test_the_prompt_opened_the_block(completion: str, text: str, unterminated: bool) -> None:
    assert extract_answer(completion, THINK) == ExtractedAnswer(text, unterminated)


_THOUGHT = "<|channel|>analysis<|message|>Rome or Paris?<|end|>"


@pytest.mark.parametrize("opened", [None, HARMONY])
@pytest.mark.parametrize(
    ("completion", "text", "unterminated"),
    [
        (f"{_THOUGHT}<|start|>assistant<|channel|>final<|message|>Paris<|return|>", "Paris", False),
        (_THOUGHT, "", True),
        ("<|channel|>final<|message|>Paris", "Paris", False),
        (f"{_THOUGHT}<|start|>assistant<|channel|>final <|constrain|>json<|message|>1", "1", False),
        ("analysisRome or Paris? The final one.assistantfinalParis is it", "Paris is it", False),
        ("commentaryHm.assistantanalysisRome?assistantfinalParis", "Paris", False),
        ("Paris", "Paris", False),
        ("analysis of it", "analysis of it", False),
        ("final answer: Paris", "final answer: Paris", False),
    ],
)
def test_messages_in_channels(
    completion: str, text: str, unterminated: bool, opened: ThinkingBlock | None
) -> None:
    assert extract_answer(completion, opened) == ExtractedAnswer(text, unterminated)


@pytest.mark.parametrize(
    ("completion", "text", "unterminated"),
    [("analysisRome or Par", "", True), ("finalParis", "Paris", False), ("analysis", "", True)],
)
def test_channels_without_markers_where_the_prompt_is_of_this_format(
    completion: str, text: str, unterminated: bool
) -> None:
    assert extract_answer(completion, HARMONY) == ExtractedAnswer(text, unterminated)
    assert extract_answer(completion) == ExtractedAnswer(completion)


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("<|im_end|>\n<|im_start|>assistant\n<think>\n", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", None),
        ("[/INST]", None),
        ("[/INST][THINK]", "[THINK]"),
        ("<|end|><|start|>assistant", "analysis"),
        ("<|end|><|start|>assistant<|channel|>final<|message|>", None),
        ("<|assistant|><|begin_of_thought|>\n\n", "<|begin_of_thought|>"),
        ("[|assistant|]<thought>\n", "<thought>"),
        ("<think>a</think><think>Okay, ", "<think>"),
        ("", None),
    ],
)
def test_open_block(text: str, opening: str | None) -> None:
    found = open_block(text)
    assert (found.opening if found else None) == opening


@pytest.mark.parametrize(
    ("text", "opened"),
    [("Q: who?\n<think>\n", True), ("what does <think> mean?", False), ("Q: who?\nA:", False)],
)
def test_open_block_at_end(text: str, opened: bool) -> None:
    assert (open_block_at_end(text) == THINK) is opened

from __future__ import annotations

import pytest

from slm_vllm.prompting.answer import ExtractedAnswer, extract_answer


@pytest.mark.parametrize(
    ("completion", "text", "unterminated"),
    [
        ("  Paris \n", "Paris", False),
        ("", "", False),
        ("<think>\nhm\n</think>\n\nParis", "Paris", False),
        ("<think></think>Paris", "Paris", False),
        ("hm, so\n</think>\n\nParis", "Paris", False),  # the prompt opened the block
        ("<think>a</think>Rome<think>b</think> Paris", "Paris", False),
        ("<think>hm, Paris or Ro", "", True),
        ("Paris <think>or perhaps", "Paris", True),
        ("<think>a</think>Paris<think>b", "Paris", True),
        ("<think>a</think>", "", False),
        ("5 < 6 think", "5 < 6 think", False),
    ],
)
def test_extract_answer(completion: str, text: str, unterminated: bool) -> None:
    assert extract_answer(completion) == ExtractedAnswer(text, unterminated)

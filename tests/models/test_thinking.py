from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from slm_vllm.models.thinking import answer_decoder


def tokenizer_with(*special: str) -> Any:
    words = {"[UNK]": 0, "hm": 1, "Paris": 2, "assistant": 3, "final": 4}
    core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens([AddedToken(text, special=True) for text in ("<|end|>", *special)])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("special", "text", "decoded"),
    [
        ((), "hm <|end|> Paris", "hm Paris"),
        (("[THINK]", "[/THINK]"), "[THINK] hm [/THINK] Paris <|end|>", "[THINK]hm[/THINK]Paris"),
        (
            ("<|channel|>", "<|message|>", "<|start|>"),
            "<|start|> assistant <|channel|> final <|message|> Paris <|end|>",
            "assistant<|channel|>final<|message|>Paris",
        ),
    ],
)
def test_markers_of_thoughts_are_seen_though_they_are_special_tokens(
    special: tuple[str, ...], text: str, decoded: str
) -> None:
    tokenizer = tokenizer_with(*special)
    (found,) = answer_decoder(tokenizer)([tokenizer(text)["input_ids"]])
    assert found.replace(" ", "") == decoded.replace(" ", "")


def test_blanks_before_punctuation_stay_whatever_the_tokenizer_asks_for() -> None:
    tokenizer = tokenizer_with()
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    core = Tokenizer(models.WordLevel({"hm": 0, ".": 1}, unk_token="hm"))
    tokenizer._tokenizer = core
    assert answer_decoder(tokenizer)([[0, 1]]) == ["hm ."]

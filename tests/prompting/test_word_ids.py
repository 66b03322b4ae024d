"""Ids put together from those of words are those of the whole text, whatever stands in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from slm_vllm.prompting import word_ids
from slm_vllm.prompting.encoding import BatchEncoder
from slm_vllm.prompting.word_ids import WordIds, cuts_at_blanks

LLAMA, QWEN, GPT_4O = word_ids._PATTERNS
# What tokenizers treat in their own way at the edge of a word.
HOSTILE = [
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", " \n ", "\t", "\x0b", "\x1c", "\x00", "\x85", "\xa0"),
    *("\u2028", "\u3000", "\u180e", "\u200b", "\ufeff", "\u0301", "e\u0301", "\u00e9", "\u212b"),
    *("word", "Word", "1", "1969", "\u00b2", "\u0661", "don't", "'S", "'", ".", "...", "?!", "/"),
    *("\u4f60\u597d", "\u0645\u0631", "\u00df", "\ufb01", "\U0001f468\u200d\U0001f469", "[1]"),
    *("<s>", "<end>", "<en", "nd>", "<s><end>", "</s"),
]
texts = st.lists(
    st.lists(st.sampled_from(HOSTILE) | st.text(max_size=3), max_size=14).map("".join), max_size=5
)


def split(pattern: str) -> list[Any]:
    return [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def gpt_2() -> list[Any]:
    return [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]


def made(
    parts: list[Any], normalizer: Any = None, added: list[AddedToken] | None = None
) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(parts)
    core.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<end>"] if added is None else [],
        show_progress=False,
    )
    core.train_from_iterator([" \n".join(HOSTILE), Path(__file__).read_text("utf-8")] * 3, trainer)
    core.add_tokens(added or [])
    return core


@cache
def tokenizer(name: str) -> Tokenizer:
    if name == "GPT-2":
        return made(gpt_2())
    if name == "Llama":
        core = made(split(LLAMA))
        core.post_processor = TemplateProcessing(
            single="<s> $A <end> <s>", special_tokens=[("<s>", 0), ("<end>", 1)]
        )
        return core
    return made(split(QWEN), normalizers.NFC()) if name == "Qwen" else made(split(GPT_4O))


KINDS = ["GPT-2", "Llama", "Qwen", "GPT-4o"]


def whole(core: Tokenizer, texts: list[str], add: bool) -> list[list[int]]:
    return [one.ids for one in core.encode_batch(texts, add_special_tokens=add)]


def encoder(core: Tokenizer, add: bool) -> BatchEncoder:
    return BatchEncoder(PreTrainedTokenizerFast(tokenizer_object=core), add_special_tokens=add)


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=150, deadline=None)
@given(texts)
def test_the_ids_are_those_of_the_whole(name: str, add: bool, texts: list[str]) -> None:
    assert kept(name, add).ids(texts) == whole(tokenizer(name), texts, add)


@cache
def kept(name: str, add: bool) -> WordIds:
    """One for all examples, which therefore meets words again."""
    found = encoder(tokenizer(name), add)._by_word
    assert found is not None
    return found


@pytest.mark.parametrize("name", KINDS)
def test_any_character_in_front_of_a_blank(name: str) -> None:
    letters = [chr(i) for i in range(sys.maxunicode) if not 0xD800 <= i < 0xE000]
    letters = [*letters[:0x3100:5], *filter(str.isspace, letters), *letters[0x3100::311]]
    asked = [f"a{letter} b {letter} {letter}c" for letter in letters]
    assert kept(name, False).ids(asked) == whole(tokenizer(name), asked, False)


def test_the_demo_models_tokenizer(demo_model_path: Path) -> None:
    core = Tokenizer.from_file(str(demo_model_path / "tokenizer.json"))
    assert cuts_at_blanks(core)
    asked = ["".join(HOSTILE[i:] + HOSTILE[:i]) for i in range(len(HOSTILE))]
    asked += [text.replace("<s>", "<|im_end|>") for text in asked]
    assert WordIds(core).ids(asked) == whole(core, asked, False)


@pytest.mark.parametrize(
    "change",
    [
        lambda: made(split(QWEN.replace(" ?", "[ ]*"))),
        lambda: made([pre_tokenizers.Digits(), *split(QWEN)]),
        lambda: made([pre_tokenizers.ByteLevel(add_prefix_space=True)]),
        lambda: made([pre_tokenizers.Punctuation(), *gpt_2()]),
        lambda: made([pre_tokenizers.Metaspace()]),
        lambda: made(split(QWEN), normalizers.NFKC()),
        lambda: made(gpt_2(), added=[AddedToken("<s>", lstrip=True)]),
        lambda: made(gpt_2(), added=[AddedToken("<s>", rstrip=True)]),
        lambda: made(gpt_2(), added=[AddedToken("word", single_word=True)]),
        lambda: made(gpt_2(), added=[AddedToken("a word")]),
        lambda: made([pre_tokenizers.Split(Regex(QWEN), "removed"), split(QWEN)[1]]),
    ],
)
def test_what_is_not_proved_is_tokenized_whole(change: Callable[[], Tokenizer]) -> None:
    core = change()
    assert not cuts_at_blanks(core)
    assert encoder(core, True)._by_word is None


def test_another_model_is_tokenized_whole() -> None:
    core = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Sequence(split(QWEN))
    assert not cuts_at_blanks(core)


def test_without_added_tokens_nothing_marks_where_a_word_ends() -> None:
    core = made(gpt_2(), added=[])
    assert WordIds(core).ids(["who wrote it", " a"]) == whole(core, ["who wrote it", " a"], False)


def test_a_mark_that_belongs_to_another_token() -> None:
    core = made(
        gpt_2(), added=[AddedToken("<s>", special=True), AddedToken("x<s>", normalized=False)]
    )
    asked = ["ax", "b<s>c", "x<s>", "<s>"]
    assert WordIds(core).ids(asked[:2]) == whole(core, asked[:2], False)
    assert WordIds(core).ids(asked) == whole(core, asked, False)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_ids, "_MOST_CHARACTERS", 400)
    words = WordIds(tokenizer("Qwen"))
    for low in range(0, 1000, 5):
        asked = [" ".join(f"{i}" * 3 for i in range(low, low + 5))]
        assert words.ids(asked) == whole(tokenizer("Qwen"), asked, False)
        assert len(words._known) < 25


def test_a_word_is_tokenized_once() -> None:
    class Core:
        seen: list[str] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer("Qwen"), name)

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            self.seen += texts
            return tokenizer("Qwen").encode_batch_fast(texts, **options)

    words = WordIds(Core())
    words.ids(["who wrote the play", "who wrote the book"])
    Core.seen.clear()
    words.ids(["who wrote the play", "the play who wrote"])
    seen = [word for text in Core.seen for word in text.split("<s>")]
    assert sorted(seen) == sorted(["the", " play", " who", *(" play", " wrote")])  # and both ends

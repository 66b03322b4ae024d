"""Ids are made in the quick way only where they are those that transformers makes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from slm_vllm.prompting.encoding import BatchEncoder


class Calls(PreTrainedTokenizerFast):
    """Counts how often transformers itself is asked; may change what it is given."""

    calls = 0
    changed = False

    def __call__(self, texts: Any, **options: Any) -> Any:
        self.calls += 1
        return super().__call__([t + "!" for t in texts] if self.changed else texts, **options)


def core(unknown: str | None = "<unk>") -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<unk>"],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz!?0123456789"),
        show_progress=False,
    )
    made.train_from_iterator(["who wrote the play about the prince"], trainer)
    return made


def calls(tokenizer: Calls, texts: list[str]) -> int:
    encoder = BatchEncoder(tokenizer, add_special_tokens=False)
    asked = tokenizer.calls
    assert (
        encoder.ids(texts)
        == PreTrainedTokenizerFast.__call__(
            tokenizer, [t + "!" for t in texts] if tokenizer.changed else texts
        )["input_ids"]
    )
    return tokenizer.calls - asked


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_the_ids_of_any_text(texts: list[str]) -> None:
    assert calls(Calls(tokenizer_object=core(), unk_token="<unk>", bos_token="<s>"), texts) == 0


def test_a_tokenizer_that_changes_its_texts_is_asked_itself() -> None:
    tokenizer = Calls(tokenizer_object=core(), unk_token="<unk>")
    tokenizer.changed = True
    assert calls(tokenizer, ["who wrote it"]) == 1


def test_a_limit_in_its_file_does_not_cut_texts() -> None:
    limited = core()
    limited.enable_truncation(2)
    tokenizer = Calls(tokenizer_object=limited, unk_token="<unk>")
    assert calls(tokenizer, ["who wrote the play about the prince"]) == 0


def test_without_a_library_below_it_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Calls(tokenizer_object=core(), unk_token="<unk>")
    monkeypatch.setattr(Calls, "backend_tokenizer", None)
    encoder = BatchEncoder(tokenizer, add_special_tokens=False)
    assert encoder._direct is None

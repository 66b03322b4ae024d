"""Texts as token ids, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slm_vllm.prompting.word_ids import WordIds, cuts_at_blanks

# Whatever transformers does beside the tokenizers library would show in one of these.
_TELLING = (
    "",
    " ",
    "who wrote it",
    "  Two\n\n\tlines \r\n ",
    "Stra\u00dfe \u00c9cole e\u0301 \ufb01 \u4f60\u597d \u0645\u0631\u062d\u0628\u0627",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u200b\ufeff\u00a0\u2028",
    "<s> </s><unk> [UNK] <|im_end|> <|endoftext|>",
    "don't 1,234.5e6 ......... __init__(self)",
    "long " * 3_000,
)


class BatchEncoder:
    """A fast tokenizer of transformers, called for the ids alone.

    The library below it makes them in half the time without offsets, masks and an object for each
    text. It is asked directly where it gives the same, which is tried once; and for each word alone
    and once, where that is proved to give the same (`word_ids`).

    Args:
        tokenizer: A fast transformers tokenizer.
        add_special_tokens: Whether to add the tokens around a text.
    """

    def __init__(self, tokenizer: Any, *, add_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._add = add_special_tokens
        self._telling = [*_TELLING, "".join(tokenizer.all_special_tokens)]
        self._direct = self._tried()
        self._by_word = self._proved()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, uncut.

        Raises:
            Exception: Whatever the tokenizer raises.
        """
        if self._by_word is not None:
            return self._by_word.ids(texts)
        if self._direct is not None:
            return [one.ids for one in self._direct(list(texts), add_special_tokens=self._add)]
        return self._with_transformers(texts)

    def _with_transformers(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=self._add,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return list(encoded["input_ids"])

    def _tried(self) -> Any:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        direct = getattr(backend, "encode_batch_fast", None)
        if direct is None:
            return None
        try:
            expected = self._with_transformers(self._telling)  # it also ends truncation and padding
            found = [one.ids for one in direct(self._telling, add_special_tokens=self._add)]
        except Exception:  # such as a vocabulary without a token for unknown words
            return None
        return direct if found == expected else None

    def _proved(self) -> WordIds | None:
        core = getattr(self._tokenizer, "backend_tokenizer", None)
        if self._direct is None or not cuts_at_blanks(core):
            return None
        whole = [one.ids for one in self._direct(self._telling, add_special_tokens=self._add)]
        around = whole[self._telling.index("")]
        for end in range(len(around) + 1):
            words = WordIds(core, around[:end], around[end:])
            if words.ids(self._telling) == whole:
                return words
        return None

"""Token ids of texts put together from those of their words, each of which is tokenized once.

That this gives the ids of the whole is proved for the tokenizers that `cuts_at_blanks` knows, which
are those of most models of today: byte-level BPE behind the patterns of GPT-2, Llama 3, Qwen and
GPT-4o. Let a text have a blank at p and in front of it a character that is no white space. Then

* no added token stands across p: none has white space in it, and none takes in what is around it;
* the text is normalized on both sides apart: NFC joins a blank with nothing in front of it;
* the pre-tokenizer splits at p: no branch of a pattern goes from a character on to a blank. In
  front of p it splits as it would without the rest: no branch looks ahead but the one for white
  space, and that no further than to the next character that is none. From p on it splits as it
  would without the beginning: no branch looks back;
* BPE sees nothing but the piece it is given.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Words are kept up to so many characters, each word counting as so many more: 20 MB at most. Of
# English text that holds all but rare ones.
_MOST_CHARACTERS, _A_WORD = 2_000_000, 20
# Tokenized with a mark between them, which takes half of the time of each by itself.
_TOGETHER = 100
# Put in front of each blank to cut there; it is in no text of words.
_CUT = "\0"

_PATTERNS = (
    # Llama 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    # Qwen 2 and 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    # GPT-4o
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


def cuts_at_blanks(core: Any) -> bool:
    """Whether the ids of a text are proved to be those of its words; see the module.

    Args:
        core: A `tokenizers.Tokenizer`.
    """
    for token in core.get_added_tokens_decoder().values():
        takes_in = token.lstrip or token.rstrip or token.single_word
        if takes_in or any(letter.isspace() for letter in token.content):
            return False
    model = core.model
    return (
        type(model).__name__ == "BPE"
        and not model.dropout
        and not model.continuing_subword_prefix
        and not model.end_of_word_suffix
        and _state(core.normalizer) in ({}, {"type": "NFC"})
        and _splits_at_blanks(_state(core.pre_tokenizer))
    )


def _splits_at_blanks(state: dict[str, Any]) -> bool:
    *before, last = state.get("pretokenizers", [state])
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return False
    if last["use_regex"]:  # GPT-2's pattern; digits may be set apart before
        return all(one["type"] == "Digits" for one in before)
    return (
        len(before) == 1
        and before[0]["type"] == "Split"
        and before[0]["pattern"].get("Regex") in _PATTERNS
        and before[0]["behavior"] == "Isolated"
    )


def _state(component: Any) -> dict[str, Any]:
    """What a part of a tokenizer is made of, {} where there is none."""
    return {} if component is None else dict(json.loads(component.__getstate__()))


class WordIds:
    """Ids of texts; words that were in an earlier one are not tokenized again. Thread-safe.

    Args:
        core: A `tokenizers.Tokenizer` that `cuts_at_blanks`.
        before: What it puts in front of the ids of a text.
        after: What it puts behind them.
    """

    def __init__(self, core: Any, before: Sequence[int] = (), after: Sequence[int] = ()) -> None:
        self._core = core
        self._mark, self._mark_id = _find_mark(core)
        self._before, self._after = (np.array(ids, np.uint32).tobytes() for ids in (before, after))
        self._known: dict[str, bytes] = {}
        self._size = 0
        self._lock = threading.Lock()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text.

        Raises:
            Exception: Whatever the tokenizer raises.
        """
        with self._lock:
            if self._size > _MOST_CHARACTERS:
                self._known.clear()
                self._size = 0
            cut = [_words(text) for text in texts]
            ends = [words.pop() for words in cut]
            new = self._new(cut)
            if not all(map(_is_apart, new)):
                cut = [[*_apart([*words, end])] for words, end in zip(cut, ends, strict=True)]
                ends = [words.pop() for words in cut]
                new = self._new(cut)
            found = self._tokenize([*new, *ends])
            self._known.update(zip(new, found, strict=False))
            self._size += sum(map(len, new)) + _A_WORD * len(new)
            return [
                _joined(self._before, *map(self._known.__getitem__, words), end, self._after)
                for words, end in zip(cut, found[len(new) :], strict=True)
            ]

    def _new(self, cut: Sequence[Sequence[str]]) -> list[str]:
        return [*set(chain.from_iterable(cut)).difference(self._known)]

    def _tokenize(self, texts: Sequence[str]) -> list[bytes]:
        """The ids of each text."""
        groups = [texts[start : start + _TOGETHER] for start in range(0, len(texts), _TOGETHER)]
        if self._mark is None:
            return [ids for group in groups for ids in self._apart(group)]
        joined = [self._mark.join(group) for group in groups]
        found: list[bytes] = []
        for group, text, ids in zip(groups, joined, self._encode(joined), strict=True):
            parts = _split(ids, self._mark_id) if text.count(self._mark) < len(group) else []
            found += parts if len(parts) == len(group) else self._apart(group)
        return found

    def _apart(self, texts: Sequence[str]) -> list[bytes]:
        return [ids.tobytes() for ids in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        encoded = self._core.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in encoded]


def _find_mark(core: Any) -> tuple[str | None, int]:
    """An added token that splits a text wherever it stands, and its id."""
    for id_, token in core.get_added_tokens_decoder().items():
        if token.special and not token.normalized and not core.encode_special_tokens:
            return token.content, id_
    return None, -1


def _split(ids: NDArray[np.uint32], mark: int) -> list[bytes]:
    """What stands between marks."""
    packed, ends = ids.tobytes(), (np.flatnonzero(ids == mark) * ids.itemsize).tolist()
    begins = [0, *(end + ids.itemsize for end in ends)]
    return [packed[a:b] for a, b in zip(begins, [*ends, len(packed)], strict=True)]


def _words(text: str) -> list[str]:
    """The words of a text, each with the blank in front of it."""
    return [text] if _CUT in text else text.replace(" ", f"{_CUT} ").split(_CUT)


def _is_apart(word: str) -> bool:
    """Whether it can be tokenized apart from a blank behind it."""
    return word != "" and not word[-1].isspace()


def _apart(words: Sequence[str]) -> Iterator[str]:
    """Joins words with those behind them that belong to them; the last one is the end."""
    joined = ""
    for word in words:
        joined += word
        if _is_apart(joined):
            yield joined
            joined = ""
    yield joined


def _joined(*packed: bytes) -> list[int]:
    return memoryview(b"".join(packed)).cast("I").tolist()

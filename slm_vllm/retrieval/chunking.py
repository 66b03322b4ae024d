"""Cuts texts into windows of words, many texts at once.

All texts of a batch are laid end to end in one byte buffer; word boundaries, windows and character
offsets are then found with array operations over the whole buffer. Only the final slicing touches
passages one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slm_vllm.config.schema import PassageConfig

MAX_WORD_BYTES = 256
"""Longer runs without a blank (encoded data, broken markup) count as several words, so that no
passage grows without bound."""

SENTENCE_SLACK = 0.25
"""With `sentences`, a window may end this fraction of its size early to end with a sentence."""

# Lead bytes of U+3000 to U+9FFF in UTF-8: scripts written without blanks, where a character is
# the nearest thing to a word.
_CJK_LEAD_FIRST, _CJK_LEAD_LAST = 0xE3, 0xE9


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of all texts, in order.

    Attributes:
        text_index: int64 (n,), the text each window was cut from.
        texts: The n window texts.
        starts: int64 (n,), offset in that text, in characters.
    """

    text_index: NDArray[np.int64]
    texts: list[str]
    starts: NDArray[np.int64]


def cut_windows(texts: Sequence[str], config: PassageConfig) -> Windows:
    """Cuts each text into windows of `config.size` words, `config.stride` words apart.

    The last window of a text may be shorter. Windows that lie wholly inside the one before are
    not made. Texts without a word give no window.
    """
    encoded = [text.encode("utf-8", "replace") for text in texts]
    # One blank between texts, so that no word reaches over the border.
    data = b" ".join(encoded)
    buffer = np.frombuffer(data, np.uint8)
    lengths = np.array([len(e) + 1 for e in encoded], np.int64)
    base = np.concatenate(([0], np.cumsum(lengths)))
    word_starts, word_ends = _word_bounds(buffer)
    first_word = np.searchsorted(word_starts, base)
    if config.sentences:
        begin, end, owner = _sentence_windows(buffer, word_ends, first_word, config)
    else:
        begin, end, owner = _plain_windows(first_word, config)
    if len(begin) == 0:
        return Windows(np.zeros(0, np.int64), [], np.zeros(0, np.int64))
    first_byte, last_byte = word_starts[begin], word_ends[end - 1]
    pieces = [
        data[a:b].decode("utf-8", "replace")
        for a, b in zip(first_byte.tolist(), last_byte.tolist(), strict=True)
    ]
    return Windows(owner, pieces, _char_offsets(buffer, first_byte, base[owner]))


def _word_bounds(buffer: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First byte and one past the last byte of each word."""
    if len(buffer) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    inside = buffer > 0x20
    previous = np.concatenate(([False], inside[:-1]))
    starts = inside & ~previous
    cjk = (buffer >= _CJK_LEAD_FIRST) & (buffer <= _CJK_LEAD_LAST)
    if cjk.any():
        starts |= cjk
        after = np.flatnonzero(cjk) + 3
        after = after[after < len(buffer)]
        starts[after] |= inside[after]
    first = np.flatnonzero(starts)
    blanks = np.flatnonzero(~inside)
    if len(blanks):
        at = np.searchsorted(blanks, first)
        run_end = np.append(blanks, len(buffer))[at]
    else:
        run_end = np.full(len(first), len(buffer), np.int64)
    last = np.minimum(run_end, np.append(first[1:], len(buffer)))
    return _split_long_words(buffer, first, last)


def _split_long_words(
    buffer: NDArray[np.uint8], first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Adds a boundary every `MAX_WORD_BYTES`, moved back to where a character begins."""
    long = np.flatnonzero(last - first > MAX_WORD_BYTES)
    if len(long) == 0:
        return first, last
    cuts = np.concatenate(
        [np.arange(first[i] + MAX_WORD_BYTES, last[i], MAX_WORD_BYTES) for i in long]
    )
    while (continuation := (buffer[cuts] & 0xC0) == 0x80).any():
        cuts = cuts - continuation
    first = np.sort(np.concatenate((first, cuts)))
    last = np.sort(np.concatenate((last, cuts)))
    return first, last


def _plain_windows(
    first_word: NDArray[np.int64], config: PassageConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First word, one past the last word, and text of each window."""
    n_words = np.diff(first_word)
    beyond = np.maximum(n_words - config.size, 0)
    n_windows = np.where(n_words > 0, 1 + -(-beyond // config.stride), 0)
    owner = np.repeat(np.arange(len(n_words)), n_windows)
    ordinal = np.arange(len(owner)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    begin = first_word[owner] + ordinal * config.stride
    end = np.minimum(begin + config.size, first_word[owner + 1])
    return begin, end, owner


def _sentence_windows(
    buffer: NDArray[np.uint8],
    word_ends: NDArray[np.int64],
    first_word: NDArray[np.int64],
    config: PassageConfig,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Like `_plain_windows`, ending at a sentence end where one is near."""
    last_end = _last_sentence_end(buffer, word_ends)
    slack = int(config.size * SENTENCE_SLACK)
    overlap = config.size - config.stride
    windows: list[tuple[int, int, int]] = []
    for text, (low, high) in enumerate(
        zip(first_word[:-1].tolist(), first_word[1:].tolist(), strict=True)
    ):
        begin = low
        while begin < high:
            end = min(begin + config.size, high)
            if end < high and (sentence := int(last_end[end - 1])) > max(begin, end - slack):
                end = sentence
            windows.append((begin, end, text))
            if end >= high:
                break
            begin = max(end - overlap, begin + 1)
    table = np.array(windows, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _last_sentence_end(
    buffer: NDArray[np.uint8], word_ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each word, one past the last word at or before it that closes a sentence, or 0."""
    if len(word_ends) == 0:
        return np.zeros(0, np.int64)
    final = buffer[word_ends - 1]
    before = buffer[np.maximum(word_ends - 2, 0)]
    stops = np.frombuffer(b".!?", np.uint8)
    closers = np.frombuffer(b"\"')]", np.uint8)
    following = buffer[np.minimum(word_ends, len(buffer) - 1)]
    closes = np.isin(final, stops) | (np.isin(final, closers) & np.isin(before, stops))
    closes |= following == 0x0A
    position = np.where(closes, np.arange(1, len(word_ends) + 1), 0)
    return np.maximum.accumulate(position)


def _char_offsets(
    buffer: NDArray[np.uint8], position: NDArray[np.int64], base: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Characters between byte `base` and byte `position`."""
    continuation = np.flatnonzero((buffer & 0xC0) == 0x80)
    skipped = np.searchsorted(continuation, position) - np.searchsorted(continuation, base)
    return position - base - skipped

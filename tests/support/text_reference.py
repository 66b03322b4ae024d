"""The definitions of `docs/statistics.md`, written once more: plain Python, sign by sign."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

# Blocks of the scripts without blanks, the two signs that several of them share, and characters
# that Unicode says never to show, as lists of code points.
_UNSPACED = (
    "2e80-2fd5 3005-3007 3021-3029 3038-303b 3400-4dbf 4e00-9fff f900-fad9 16fe3 20000-3ffff "
    "3041-3096 309d-309f 1b001-1b11f 1b132 1b150-1b152 "
    "30a1-30fa 30fc-30ff 31f0-31ff ff66-ff6f ff71-ff9d 1aff0-1affe 1b000 1b120-1b122 1b155 "
    "1b164-1b167 0e01-0e3a 0e40-0e5b 0e81-0edf 1780-17f9 19e0-19ff 1000-109f a9e0-a9fe aa60-aa7f"
)
_UNSEEN = (
    "ad 34f 61c 17b4-17b5 180b-180f 200b-200f 202a-202e 2060-206f fe00-fe0f feff fff0-fff8 "
    "1bca0-1bca3 1d173-1d17a e0000-e0fff"
)
_SEPARATORS = set("‒–—―…、。！（），：；？") | {chr(c) for c in (*range(0x3008, 0x3012),)}
_SEPARATORS |= {
    chr(c) for c in (*range(0x3014, 0x301C), *range(0xF0B, 0xF15), *range(0x1361, 0x1369))
}


def _points(listed: str) -> set[int]:
    found: set[int] = set()
    for part in listed.split():
        first, _, last = part.partition("-")
        found.update(range(int(first, 16), int(last or first, 16) + 1))
    return found


UNSPACED, UNSEEN = _points(_UNSPACED), _points(_UNSEEN)


def is_unspaced(sign: str) -> bool:
    return ord(sign) in UNSPACED and unicodedata.category(sign) in ("Lo", "Lm", "Nl")


def is_mark(sign: str) -> bool:
    return unicodedata.category(sign).startswith("M")


def is_word_sign(sign: str) -> bool:
    return sign == "_" or unicodedata.category(sign)[0] in "LN"


def fold(text: str) -> str:
    shown = "".join(sign for sign in text if ord(sign) not in UNSEEN)
    lower = unicodedata.normalize("NFKC", shown).lower().replace("i\u0307", "i")
    return unicodedata.normalize("NFC", lower)


def words(text: str) -> list[str]:
    found: list[str] = []
    last = ""  # the kind of word that may go on: "letter" of a script without blanks, "run" or none
    for sign in fold(text):
        if is_mark(sign):
            if last:
                found[-1] += sign
        elif is_unspaced(sign):
            found.append(sign)
            last = "letter"
        elif is_word_sign(sign):
            if last == "run":
                found[-1] += sign
            else:
                found.append(sign)
            last = "run"
        else:
            last = ""
    return found


def _spaced_out(text: str) -> str:
    parts: list[str] = []
    for sign in text:
        if is_unspaced(sign):
            parts += [" ", sign, " "]
        elif is_mark(sign) and len(parts) > 1 and parts[-1] == " " and is_unspaced(parts[-2][0]):
            parts[-2] += sign
        else:
            parts.append(sign)
    return "".join(parts)


def squad(text: str) -> list[str]:
    """`normalize_answer` of the SQuAD v1.1 evaluation with Unicode's punctuation, as tokens."""
    bare = "".join(
        sign
        for sign in fold(text)
        if sign not in string.punctuation and not unicodedata.category(sign).startswith("P")
    )
    spaced = _spaced_out(bare)
    pieces = re.split(r"([^\W_]+)", "".join("x" if is_mark(s) else s for s in spaced))
    kept, place = [], 0
    for piece in pieces:
        own = spaced[place : place + len(piece)]
        kept.append(" " if own in ("a", "an", "the") else own)
        place += len(piece)
    return "".join(kept).split() or spaced.split()


def f1(prediction: str, answer: str) -> float:
    said, wanted = squad(prediction), squad(answer)
    same = sum((Counter(said) & Counter(wanted)).values())
    if not same:
        return 0.0
    precision, recall = same / len(said), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def stands_in(answer: str, text: str) -> bool:
    wanted = squad(answer)
    parted = "".join(" " if sign in _SEPARATORS else sign for sign in text)
    return bool(wanted) and any(_is_inside(wanted, squad(form)) for form in (text, parted))


def _is_inside(inner: list[str], outer: list[str]) -> bool:
    places = range(len(outer) - len(inner) + 1)
    return any(outer[place : place + len(inner)] == inner for place in places)

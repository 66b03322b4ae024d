"""Detokenises text: no blanks around punctuation, one empty line at most."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

# The rules are decided for all blanks of a text at once: a page has tens of thousands of blanks,
# and a regular expression that begins with one is tried at each.
_ODD_BLANK = re.compile(r"[^\S\n ]")
_CONTRACTION = re.compile(r" (?<=\w )(?:['’](?:s|re|ve|ll|d|m)|n['’]t)(?!\w)")

_PUNCTUATION, _FOLLOWING, _OPENING, _CURRENCY, _APOSTROPHE, _N, _ODD = 1, 2, 4, 8, 16, 32, 64
_CLASSES = np.zeros(0x3002, np.uint8)  # bits by code point; the last stands for all further ones
for _bit, _characters in (
    (_PUNCTUATION, ",.;:!?%)]}"),
    (_FOLLOWING, ' \n)]}"”’'),
    (_OPENING, "([{"),
    (_CURRENCY, "$£€"),
    (_APOSTROPHE, "'’"),
    (_N, "n"),
    (_ODD, [chr(c) for c in range(0x3001) if chr(c).isspace() and chr(c) not in " \n"]),
):
    _CLASSES[[ord(character) for character in _characters]] |= _bit

_ENCODINGS = {1: "ascii", 2: "utf-16-le", 4: "utf-32-le"}  # by bytes of a code point

_Codes = npt.NDArray[np.unsignedinteger]
_At = npt.NDArray[np.intp]


def detokenise(text: str) -> str:
    """Mends punctuation, collapses blanks and leaves at most one empty line in a row."""
    if odd_blanks(code_points(text)):
        text = _ODD_BLANK.sub(" ", text)
    while "  " in text:
        text = text.replace("  ", " ")
    text = _with_opening_quotes(text)
    if "''" in text:
        text = text.replace(" ''", '"').replace("''", '"')
    lines: list[str] = []
    for line in _without_needless_blanks(text).split("\n"):
        line = line.strip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


def _with_opening_quotes(text: str) -> str:
    """Does `text.replace("`` ", '"').replace("``", '"')`.

    One character is found much faster than two.
    """
    first, *pieces = text.split("`")
    out = [first]
    run = 0  # accents in a row
    for at, piece in enumerate(pieces, start=1):
        run += 1
        if not piece and at < len(pieces):
            continue
        quote = run > 1 and piece.startswith(" ")
        run -= 2 * quote
        out.append('"' * (run // 2) + "`" * (run % 2) + '"' * quote + piece[quote:])
        run = 0
    return "".join(out)


def odd_blanks(codes: _Codes) -> bool:
    """Says whether there is white space other than blanks and line breaks."""
    found = codes[codes < 32] if codes.itemsize == 1 else codes[(codes < 32) | (codes > 127)]
    return bool(len(found)) and bool((_class_of(found) & _ODD).any())


def code_points(text: str) -> _Codes:
    """Gives the code points of a text, in one or two bytes each where that is enough."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    codes: _Codes = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    if len(codes) == len(text) and not ((codes & 0xF800) == 0xD800).any():
        return codes
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _without_needless_blanks(text: str) -> str:
    text += "\n"  # so that every blank has a successor; the caller strips it
    codes = code_points(text)
    blanks = np.flatnonzero(codes == 32)
    if not len(blanks):
        return text
    before, after = _class_of(codes[blanks - 1]), _class_of(codes[blanks + 1])
    keep = np.ones(len(codes), bool)
    keep[blanks[before & _OPENING != 0]] = False
    keep[_before_punctuation(codes, blanks[after & _PUNCTUATION != 0])] = False
    amounts = blanks[before & _CURRENCY != 0].tolist()
    keep[[at for at in amounts if text[at + 1].isdecimal()]] = False
    words = blanks[after & _N != 0]
    words = words[_class_of(codes[words + 2]) & _APOSTROPHE != 0].tolist()  # n't
    words += blanks[after & _APOSTROPHE != 0].tolist()
    keep[[at for at in words if _CONTRACTION.match(text, at)]] = False
    kept: bytes = codes[keep].tobytes()
    return kept.decode(_ENCODINGS[codes.itemsize], "surrogatepass")


def _class_of(codes: _Codes) -> npt.NDArray[np.uint8]:
    if codes.itemsize > 1:
        codes = np.minimum(codes, len(_CLASSES) - 1)
    return _CLASSES[codes]


def _before_punctuation(codes: _Codes, blanks: _At) -> _At:
    """Picks the blanks before punctuation that ends a word: not the point of " .50"."""
    ends = []
    end = blanks + 2
    while len(blanks):
        found = _class_of(codes[end])
        done = found & _FOLLOWING != 0
        ends.append(blanks[done])
        more = ~done & (found & _PUNCTUATION != 0)
        blanks, end = blanks[more], end[more] + 1
    return np.concatenate(ends) if ends else blanks

"""The wording of sentences, chosen by a hash so that an edit of one row leaves all others alone."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

SEED = "slm-vllm-demo-1"


NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)


def slug(text: str) -> str:
    """Return a lower-case ASCII id made from a name."""
    text = text.replace("ø", "o").replace("ł", "l").replace("Ł", "L")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def draw(key: str, count: int) -> int:
    """Return a number below ``count`` that depends only on the seed and the key."""
    digest = hashlib.sha256(f"{SEED}|{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def pick(key: str, options: Sequence[str]) -> str:
    """Choose one of several phrasings by the seed."""
    return options[draw(key, len(options))]


def shuffled(key: str, sentences: Sequence[str]) -> list[str]:
    """Return the non-empty sentences in an order that depends only on the seed and the key."""
    kept = [sentence for sentence in sentences if sentence]
    return sorted(kept, key=lambda sentence: draw(f"{key}|{sentence}", 1 << 60))


def join_names(names: Sequence[str]) -> str:
    """Join names as in running English: ``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def article(noun: str) -> str:
    """Return the noun with the indefinite article before it."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def be(names: Sequence[str]) -> str:
    """Return the form of the verb that fits the number of names."""
    return "is" if len(names) == 1 else "are"


def sentence_case(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def paragraph(*sentences: str) -> str:
    """Join non-empty sentences to a paragraph, each starting with a capital letter."""
    return " ".join(sentence_case(sentence) for sentence in sentences if sentence)


def count_of(number: int, noun: str) -> str:
    """Return a count with its noun, such as ``one year`` or ``25 years``."""
    word = NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else f"{number:,}"
    return f"{word} {noun}" if number == 1 else f"{word} {noun}s"


def number_spellings(number: int) -> list[str]:
    """Return a number in figures and, if it is small, in words."""
    return [str(number), NUMBER_WORDS[number]] if number < len(NUMBER_WORDS) else [str(number)]


def mentions(text: str, phrase: str) -> bool:
    """Return whether a text holds a phrase as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None

"""Overrides `key=value`: values are taken as typed wherever that is unambiguous.

Hydra's grammar has no place for letters beyond ASCII, apostrophes, `(`, `=`, `#`, `&` and others.
What it cannot read, and every value of a key that holds text, is quoted for it here.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from slm_vllm.errors import ConfigError

GROUPS = (
    "model",
    "dataset",
    "corpus",
    "retriever",
    "experiment_mode",
    "prompt",
    "hardware",
    "judge",
)
OPTIONAL_GROUPS = ("corpus", "judge")
"""Groups of which nothing is chosen by default. A key of theirs then chooses their `custom`."""

_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", re.ASCII)
_BREAKS = {"\\n": "\n", "\\t": "\t"}
_LETTERS = re.compile(r"(?<!\\)\\[nt]")


@dataclass(frozen=True, slots=True)
class Override:
    """One `key=value` word, split."""

    key: str
    value: str

    @property
    def is_group_choice(self) -> bool:
        """Whether it chooses a file of a group rather than setting a value."""
        return self.key in GROUPS


def parse_override(word: str) -> Override:
    """Splits a command-line word into key and value.

    Raises:
        ConfigError: The word is not of the form `key=value`, or not text.
    """
    key, equals, value = word.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"'{word}' is not an override. Overrides are words of the form key=value, "
            "for example generation.max_new_tokens=64"
        )
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{word!a}: holds bytes that are not UTF-8. Write them as UTF-8"
        ) from None
    return Override(key.strip().lstrip("+"), value)


def may_hold_secret(word: str) -> bool:
    """Whether a word says who is told how a run ended, which no file and no server may hold."""
    key = word.partition("=")[0].strip().lstrip("+")
    return key.partition(".")[0] == "notify"


def quoted(value: str) -> str:
    """A value quoted for Hydra's override grammar; interpolations in it stay alive."""
    # Backslashes are literal there, except in front of a quote.
    escaped = re.sub(r"(\\*)('|\Z)", lambda run: run[1] * 2 + run[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def hydra_word(override: Override, kind: Any) -> str:
    """The word that sets the value as it was typed.

    Args:
        override: Sets a value; not a group choice.
        kind: What the key holds, as the schema says; None where it says nothing.

    Raises:
        ConfigError: A list or mapping that cannot be read, or a key that Hydra cannot set.
    """
    key, value = override.key, override.value
    if key.startswith("prompt.") or key == "generation.stop":
        # No shell makes a line break of it, and few prompts mean the two letters.
        value = _LETTERS.sub(lambda found: _BREAKS[found[0]], value)
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{key}: cannot be set on the command line; write it in a YAML file")
    # A value may be set whether or not the chosen YAML file mentions its key: that is what ++
    # says to Hydra.
    return f"++{key}={_as_typed(key, value, is_text=_holds_text(kind))}"


def list_words(key: str, text: str) -> str:
    """What to type for a list of the items of a text, quoted for the shell as well."""
    text = _with_letters(text).strip().strip("[]")
    items = [part.strip().strip("'\"") for part in text.split(",")]
    return shlex.quote(f"{key}=[{','.join(quoted(item) for item in items if item)}]")


def _with_letters(text: str) -> str:
    """A text with its line breaks and tabs as they are typed."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def _as_typed(key: str, value: str, *, is_text: bool) -> str:
    readable, means_itself = _read(value)
    if readable and (means_itself or not is_text):
        return value
    opening = value.lstrip()[:1]
    if not is_text and opening in ("[", "{"):
        if "{" in value:
            form = "{name: 'value'}" if opening == "{" else "[{name: 'value'}]"
            example = shlex.quote(f"{key}={form}")
        else:
            example = list_words(key, value)
        raise ConfigError(
            f"{key}={_with_letters(value)}: cannot be read. Put quotes around what holds special "
            f"characters: {example}"
        )
    return quoted(value)


def _read(value: str) -> tuple[bool, bool]:
    """Whether Hydra can read a value, and whether it was written for Hydra.

    That is one with quotes around it, an escape, an interpolation, or null.
    """
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    try:
        override = _parser().parse_override(f"key={value}")
        found = override._value
    except HydraException:
        return False, False
    if override.is_sweep_override():
        return False, False
    for_hydra = isinstance(found, QuotedString) or "\\" in value or "${" in value
    return True, for_hydra or found is None


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _holds_text(kind: Any) -> bool:
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return str in options and set(options) <= {str, NoneType}

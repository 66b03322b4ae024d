"""Texts with fields in braces, as the prompts of a configuration are written."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any


def checked_template(text: str, fields: Mapping[str, Any], needed: tuple[str, ...]) -> str:
    """Gives a `str.format` string back, after it was filled in once.

    Args:
        text: The string.
        fields: All fields that it may have, with a value of the kind that each will get.
        needed: Fields that it must have.

    Raises:
        ValueError: It has another field or cannot be filled in, or one that it needs is missing.
    """
    try:
        text.format(**fields)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(f"{{{field}}}" for field in fields)
        raise ValueError(
            f"cannot be filled in ({error!r}). It knows {known}; write {{{{ and }}}} for braces "
            "of the text"
        ) from None
    shown = {name for _, name, _, _ in Formatter().parse(text)}
    for field in needed:
        if field not in shown:
            raise ValueError(f"must hold {{{field}}}, or no prompt would show it")
    return text

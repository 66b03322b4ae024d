"""Turns `retriever.options` into the frozen dataclass of its retriever class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest


def parse_options(kind: str, options_class: type, options: Mapping[str, Any]) -> Any:
    """Checks names, types and ranges.

    Raises:
        ConfigError: Names the key, what was found and what is valid.
    """
    valid = [f.name for f in fields(options_class)]
    for key in options:
        if key not in valid:
            hint = nearest(str(key), valid) if valid else f"{kind} has no options"
            raise ConfigError(f"retriever.options.{key}: {kind} has no such option. {hint}")
    try:
        return TypeAdapter(options_class).validate_python(dict(options))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"].removeprefix("Value error, ")
            where = f"retriever.options.{key}" if key else "retriever.options"
            found = f" (found {problem['input']!r})" if key else ""
            lines.append(f"{where}: {message}{found}")
        raise ConfigError("\n".join(lines)) from None

"""Hydra's composition, a sixteenth of a second, made once for words that say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm_vllm.config import compose
from slm_vllm.config.overrides import Override

# Each test has a folder of its own. What is composed does not depend on its plain letters.
_OWN_FOLDER = re.compile(r"/[\w./-]*/pytest-of-[\w./-]+")
_STAND_IN = re.compile(r"/own/(\d+)\.")
_composed: dict[tuple[Any, ...], dict[str, Any]] = {}
each_time = compose._compose_raw


def compose_raw(
    overrides: Sequence[Override], config_dir: str | Path | None = None
) -> dict[str, Any]:
    """`compose._compose_raw` of the shipped files; with files of a test's own it is made anew."""
    if len(folders := compose._search_path(config_dir)) > 1:
        return each_time(overrides, config_dir)
    real: list[str] = []

    def stand_in(found: re.Match[str]) -> str:
        real.append(found[0])
        return f"/own/{len(real) - 1}."

    words = [replace(word, value=_OWN_FOLDER.sub(stand_in, word.value)) for word in overrides]
    key = (*words, *folders)
    if key not in _composed:
        _composed[key] = each_time(words, config_dir)
    return {name: _with_folders(value, real) for name, value in _composed[key].items()}


def _with_folders(content: Any, real: Sequence[str]) -> Any:
    if isinstance(content, dict):
        return {name: _with_folders(value, real) for name, value in content.items()}
    if isinstance(content, list):
        return [_with_folders(value, real) for value in content]
    if isinstance(content, str):
        return _STAND_IN.sub(lambda found: real[int(found[1])], content)
    return content

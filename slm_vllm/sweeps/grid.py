"""The grid of a sweep, from options, a YAML file, or both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from slm_vllm.config.compose import read_keys, validated
from slm_vllm.config.section import FolderName, Section, UserPath
from slm_vllm.errors import ConfigError

_NEEDED = ("models", "datasets", "modes")

T = TypeVar("T")


def _listed(value: Any) -> Any:
    """A list, where there is one text with commas between its words, or one number."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _each_line(value: Any) -> Any:
    """A list, where there is one word; its commas are its own."""
    return [value] if isinstance(value, str) else value


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice")
    return values


_Axis = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_each_once)]
_Counts = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_listed), AfterValidator(_each_once)
]


class SweepGrid(Section):
    """The axes of a sweep and what all its cells share."""

    models: _Axis
    """As for `eval --model`."""
    datasets: _Axis
    """As for `eval --dataset`."""
    modes: _Axis
    """As for `eval --mode`."""
    retrievers: _Axis = ("bm25",)
    """As for `eval --retriever`; only the modes that search are crossed with them."""
    top_k: _Counts = ()
    """Passages in the prompt; each retriever is crossed with them. None given: as each retriever's
    configuration says."""
    overrides: Annotated[tuple[str, ...], BeforeValidator(_each_line)] = ()
    """Further `key=value` words."""
    name: FolderName = "sweep"
    """Folder of the sweep under `output_dir`."""
    output_dir: UserPath = "outputs"
    """Where sweeps are kept."""
    samples: int | None = Field(default=None, ge=1)
    """Only the first rows of each dataset."""
    config_dir: str | None = None
    """Folder with configuration groups of the user's own."""

    @property
    def folder(self) -> Path:
        """The folder that holds the run folders of the cells."""
        return Path(self.output_dir, self.name)


def sweep_grid(words: Mapping[str, Any]) -> SweepGrid:
    """Makes the grid of a command line.

    Args:
        words: Values of the options by the names of `SweepGrid`, None or () for those not given;
            `file` names a YAML file with the same keys, over which options win.

    Raises:
        ConfigError: The file cannot be used, a value is not valid, or an axis is missing.
    """
    file = words.get("file")
    content = read_keys(Path(file), f"--file {file}:", "models: [demo]") if file else {}
    given = {k: v for k, v in words.items() if k != "file" and v not in (None, ())}
    content |= given
    missing = [f"--{axis}" for axis in _NEEDED if not _listed(content.get(axis))]
    if missing:
        raise ConfigError(
            f"a sweep needs {', '.join(missing)} (or these keys in the file of --file)"
        )
    where = f"The sweep of --file {file} and of options" if given else f"--file {file}"
    return validated(SweepGrid, content, where if file else "The sweep")

"""Turns the values of `--model`, `--dataset` and `--mode` into overrides.

Each takes the name of a YAML file of its group; `--model` also takes a folder or a Hugging Face
repository, `--dataset` also a file or URL.
"""

from __future__ import annotations

import re
from pathlib import Path

from slm_vllm.config.compose import group_choices, nearest_choice, read_choice
from slm_vllm.config.overrides import quoted
from slm_vllm.errors import ConfigError


def model_override(value: str, config_dir: str | Path | None = None) -> list[str]:
    """Overrides that choose a model by group name, repository or local folder.

    Raises:
        ConfigError: It is none of the three.
    """
    choices = group_choices("model", config_dir)
    if value in choices:
        return [f"model={value}"]
    for name, path in choices.items():
        if read_choice(path).get("path") == value:
            return [f"model={name}"]
    if _is_path(value) or re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        return [
            "model=custom",
            f"model.name={quoted(_slug(value))}",
            f"model.path={_literal(value)}",
        ]
    raise ConfigError(
        f"--model {value}: not a model configuration, a local folder or a repository "
        f"(owner/name). {nearest_choice('model', value, config_dir)}"
    )


def dataset_override(value: str, config_dir: str | Path | None = None) -> list[str]:
    """Overrides that choose a dataset by group name, file or URL.

    Raises:
        ConfigError: It is neither a configuration nor anything like a path.
    """
    return _file_override("dataset", value, config_dir)


def corpus_override(value: str, config_dir: str | Path | None = None) -> list[str]:
    """Overrides that choose a corpus by group name, file, folder or URL.

    Raises:
        ConfigError: It is neither a configuration nor anything like a path.
    """
    return _file_override("corpus", value, config_dir)


def retriever_override(value: str, config_dir: str | Path | None = None) -> list[str]:
    """Overrides that choose a retriever by group name, or a run file of trec_eval's form.

    Raises:
        ConfigError: It is neither.
    """
    choices = group_choices("retriever", config_dir)
    if value in choices:
        return [f"retriever={value}"]
    if not _is_path(value):
        raise ConfigError(
            f"--retriever {value}: not a retriever configuration, and no run file of that name is "
            f"here. {nearest_choice('retriever', value, config_dir)}"
        )
    return [
        "retriever=trec_run",
        f"retriever.name={quoted(_slug(value))}",
        f"retriever.options.file={_literal(value)}",
    ]


def mode_override(value: str, config_dir: str | Path | None = None) -> list[str]:
    """The override that chooses a mode by group name.

    Raises:
        ConfigError: There is none of that name.
    """
    if value not in group_choices("experiment_mode", config_dir):
        raise ConfigError(
            f"--mode {value}: there is no such experiment_mode. "
            f"{nearest_choice('experiment_mode', value, config_dir)}"
        )
    return [f"experiment_mode={value}"]


def _file_override(group: str, value: str, config_dir: str | Path | None) -> list[str]:
    choices = group_choices(group, config_dir)
    if value in choices:
        return [f"{group}={value}"]
    if _is_path(value) or "://" in value or Path(value).suffix:
        return [
            f"{group}=custom",
            f"{group}.name={quoted(_slug(value))}",
            f"{group}.path={_literal(value)}",
        ]
    raise ConfigError(
        f"--{group} {value}: not a {group} configuration and not a file. "
        f"{nearest_choice(group, value, config_dir)}"
    )


def _is_path(value: str) -> bool:
    return value.startswith((".", "/", "~")) or Path(value).exists()


def _slug(value: str) -> str:
    """A name for output folders made of the last part of a path or repository."""
    last = value.rstrip("/").rsplit("/", 1)[-1]
    stem = re.sub(r"(\.(jsonl|json|csv|tsv|parquet|arrow|feather|gz|zst|bz2|xz|zip))+$", "", last)
    return re.sub(r"[^\w.-]+", "-", stem).strip(".-").lower() or "unnamed"


def _literal(value: str) -> str:
    """A value quoted for Hydra's override grammar that means exactly its characters."""
    return quoted(re.sub(r"(\\*)\$\{", lambda run: run[1] * 2 + r"\${", value))

"""Translates commands of the earlier scripts into current ones."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from slm_vllm.config.compose import is_known
from slm_vllm.config.legacy import override_today
from slm_vllm.config.overrides import parse_override
from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest

_RUNNERS = ("poetry", "uv", "run", "nohup", "exec", "time", "python", "python3", "-u", "-m")
_REDIRECTIONS = (">", ">>", "2>", "2>&1", "&", "&>", "1>")


@dataclass
class _Words:
    """The words after the name of a script."""

    flags: dict[str, str | None]
    overrides: list[str]
    others: list[str]

    def value(self, *names: str) -> str | None:
        """What is given with one of the flags."""
        return next((self.flags[name] for name in names if self.flags.get(name)), None)

    def kept(self, *names: str) -> list[str]:
        """Flags that are called the same today, with their values."""
        return [
            word
            for name in names
            if name in self.flags
            for word in (name, self.flags[name])
            if word is not None
        ]


def explain(command: str) -> str:
    """The command of today for one of the earlier scripts.

    Raises:
        ConfigError: It runs none of them, or cannot be read.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{command}: cannot be read as a command ({error})") from None
    if not words:
        raise ConfigError("give the earlier command in quotes, with the name of its script")
    before, script, after = _split(words)
    if script not in SCRIPTS:
        raise ConfigError(
            f"{command}: runs none of the earlier scripts. {nearest(script, SCRIPTS)}"
        )
    environment = [word for word in before if "=" in word]
    redirected = _redirections(after)
    arguments = _parsed(after[: len(after) - len(redirected)])
    new = ["slm-vllm", *SCRIPTS[script](arguments)]
    prefix = [*environment, *(["nohup"] if "nohup" in before else [])]
    line = shlex.join([*prefix, *new])
    return " ".join([line, *redirected])


def _split(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Words before the script, its file name, words after it."""
    for number, word in enumerate(words):
        name = PurePath(word).name
        if name.endswith(".py"):
            return words[:number], name, words[number + 1 :]
        if word not in _RUNNERS and "=" not in word:
            return words[:number], f"{name}.py", words[number + 1 :]
    return words, "", []


def _redirections(words: list[str]) -> list[str]:
    for number, word in enumerate(words):
        if word in _REDIRECTIONS:
            return words[number:]
    return []


def _parsed(words: list[str]) -> _Words:
    found = _Words({}, [], [])
    flag: str | None = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.flags[name] = value if equals else None
            flag = None if equals else name
        elif flag is not None and flag not in _SWITCHES:
            found.flags[flag], flag = word, None
        elif "=" in word:
            found.overrides.append(word)
        else:
            found.others.append(word)
    return found


_SWITCHES = (
    "--no-clearml", "--no-upload", "--test-operations", "--check-datasets", "--force", "--raw",
    "--processed",
)  # fmt: skip


def _experiment(arguments: _Words) -> list[str]:
    today = [override_today(parse_override(word), is_known) for word in arguments.overrides]
    kept = [f"{word.key}={word.value}" for word in today if word is not None]
    return ["eval", *arguments.kept("--no-clearml"), *kept]


def _prepare(kind: str, raw: str) -> Callable[[_Words], list[str]]:
    def command(arguments: _Words) -> list[str]:
        source = arguments.value("--input", "--input-file", "--input_file", "--input-path") or next(
            iter(arguments.others), f"data/{raw}"
        )
        target = arguments.value("--output", "--output-dir", "--output_dir")
        to = ["--output-dir", target] if target else []
        return ["data", "prepare", kind, "--input", source, *to]

    return command


def _check(name: str) -> Callable[[_Words], list[str]]:
    return lambda arguments: ["data", "check", next(iter(arguments.others), name)]


def _s3_test(arguments: _Words) -> list[str]:
    return ["s3", "test", *arguments.kept("--test-operations", "--check-datasets", "--bucket")]


def _pull_processed(arguments: _Words) -> list[str]:
    return ["s3", "pull", _which(arguments), "--processed", *arguments.kept("--bucket")]


def _download(arguments: _Words) -> list[str]:
    mode = arguments.value("--mode") or ""
    if mode == "browse":
        return ["s3", "ls", *arguments.kept("--bucket")]
    if mode == "custom":
        key = arguments.value("--key", "--s3-key", "--object") or "KEY"
        to = arguments.value("--to", "--output", "--local-path") or "data"
        return ["s3", "pull", "--key", key, "--to", to, *arguments.kept("--bucket")]
    return ["s3", "pull", mode or _which(arguments), *arguments.kept("--raw", "--bucket")]


def _upload(arguments: _Words) -> list[str]:
    file = arguments.value("--file", "--local-path", "--from")
    if file is not None:
        key = arguments.value("--key", "--s3-key")
        return ["s3", "push", "--from", file, *(["--key", key] if key else [])]
    return ["s3", "push", _which(arguments), *arguments.kept("--bucket", "--force")]


def _process(arguments: _Words) -> list[str]:
    return ["s3", "process", _which(arguments), *arguments.kept("--no-upload", "--bucket")]


def _artifacts(arguments: _Words) -> list[str]:
    run = arguments.value("--run", "--task", "--task-name") or next(iter(arguments.others), "RUN")
    return ["s3", "artifacts", run, *arguments.kept("--bucket")]


def _which(arguments: _Words) -> str:
    given = arguments.value("--mode", "--dataset", "--datasets") or next(
        iter(arguments.others), "both"
    )
    return given if given in ("nq", "simple_qa", "both") else "both"


SCRIPTS: Mapping[str, Callable[[_Words], list[str]]] = {
    "run_experiment_simple.py": _experiment,
    "convert_nq_data.py": _prepare("nq", "NQ-open.dev.merged.jsonl"),
    "convert_simple_qa_data.py": _prepare("simple_qa", "simple_qa_test_set_with_documents.csv"),
    "test_local_data.py": _check("nq"),
    "test_simple_qa_data.py": _check("simple_qa"),
    "test_s3_connection.py": _s3_test,
    "download_processed_data.py": _pull_processed,
    "download_from_s3.py": _download,
    "upload_to_s3.py": _upload,
    "process_s3_data.py": _process,
    "check_minio_artifacts.py": _artifacts,
}
"""The earlier scripts, and what makes the command of today from their arguments."""

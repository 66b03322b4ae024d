"""Errors that a user can cause or fix, each with the exit code of the command line.

Every message says what was wrong, where, and what to do about it. Anything that is not an
`SlmVllmError` is a defect of the program and shows its traceback.
"""

from __future__ import annotations


class SlmVllmError(Exception):
    """Base of all errors shown to users without a traceback."""

    exit_code = 1


class ConfigError(SlmVllmError):
    """A command line, configuration file or environment that cannot be used."""

    exit_code = 2


class DataError(SlmVllmError):
    """A dataset or document file that is missing, damaged or of another layout."""

    exit_code = 3


class EngineError(SlmVllmError):
    """A model or engine that cannot be loaded, or died."""

    exit_code = 4


class EngineDiedError(EngineError):
    """An engine that was loaded and is gone; another one may go on where it stopped."""


class StorageError(SlmVllmError):
    """A run folder, cache or bucket that cannot be read or written."""

    exit_code = 5


class MissingExtraError(ConfigError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        from slm_vllm.extras import install_advice

        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"{install_advice(extra, package)}"
        )


def first_line(error: BaseException) -> str:
    """The first line of what a library says of a failure: those below it are about itself."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def reason_of(error: Exception) -> str:
    """What an operating system or a library says of a failure, in one line."""
    message = getattr(error, "strerror", None) or " ".join(str(error).split())
    return str(message or type(error).__name__)

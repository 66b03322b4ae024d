"""Variables of the environment and of `.env`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_vllm.errors import ConfigError, reason_of


def with_env_file(env_file: Path | None = None) -> dict[str, str]:
    """The environment over the file; neither is changed. What is empty is left out.

    Args:
        env_file: Instead of `.env` in the working directory, which may be missing.

    Raises:
        ConfigError: The file cannot be read, or one that was named is missing.
    """
    if env_file is not None and not env_file.is_file():
        raise ConfigError(f"--env-file {env_file}: there is no such file")
    from_file = read_env_file(env_file or Path(".env"))
    return {**from_file, **{name: value for name, value in os.environ.items() if value}}


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file that are not empty; none where it is missing.

    Raises:
        ConfigError: It cannot be read.
    """
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        read = dotenv_values(path, interpolate=False)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({reason_of(error)})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} cannot be read: it is not text in UTF-8") from None
    return {name: value.strip() for name, value in read.items() if value}


@contextmanager
def kept_variable(name: str) -> Iterator[None]:
    """Has a variable of the environment after the block as it was before."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before

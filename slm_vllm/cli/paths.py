"""Options and arguments that are paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from slm_vllm.errors import StorageError, reason_of
from slm_vllm.paths import expanded


class UserPath(click.Path):
    """A path whose `~` the shell did not expand, as in `--output-dir=~/runs`."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Expands it, then checks it as click does; an unset variable of the shell is no path."""
        if not os.fspath(value):
            self.fail("must not be empty", param, ctx)
        try:
            return super().convert(expanded(os.fspath(value)), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def make_folder(folder: Path, option: str) -> None:
    """Makes a folder that is written to at the end, so that no work before that is lost.

    Args:
        folder: What to make; its parents too.
        option: The option that named it or a file in it, for the message.

    Raises:
        StorageError: There can be none, or nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{option}: {folder} cannot be made ({reason_of(error)})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{option}: nothing can be written in {folder}")

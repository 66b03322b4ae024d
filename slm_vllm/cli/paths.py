"""Options and arguments that are paths."""

from __future__ import annotations

import os
from typing import Any

import click

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

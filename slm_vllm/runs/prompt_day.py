"""The date that chat templates see: one for all prompts of a run."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from slm_vllm.errors import ConfigError
from slm_vllm.rundir.files import if_readable, read_manifest
from slm_vllm.runs.cell import Cell


def prompt_day(cell: Cell, today: date) -> date:
    """That of the answers that are there already, `prompt.date`, or the day the command began.

    Args:
        cell: The run, with its journal open.
        today: The day the command began.

    Raises:
        ConfigError: `prompt.date` is not the day of the answers that are there.
    """
    if not cell.config.engine.takes_prompts:
        return today  # the server writes the day of each request
    wanted = cell.config.prompt.day
    recorded = _recorded(cell.folder.path) if len(cell.journal) else None
    if recorded and wanted and recorded != wanted:
        raise ConfigError(
            f"prompt.date={wanted}: {cell.folder.path} holds answers to prompts of {recorded}. "
            "Give this run a name of its own with --name, or replace the earlier one with "
            "--overwrite"
        )
    return recorded or wanted or today


def _recorded(folder: Path) -> date | None:
    manifest = if_readable(read_manifest, folder) or {}
    try:
        return date.fromisoformat(manifest["prompt_date"])
    except (ValueError, KeyError, TypeError):
        return None

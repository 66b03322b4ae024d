"""Publishes the spool of a run whose process has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slm_vllm.errors import ConfigError, DataError, StorageError
from slm_vllm.rundir import names
from slm_vllm.rundir.files import read_config
from slm_vllm.tracking.clearml.arrange import on_server
from slm_vllm.tracking.clearml.settings import find_clearml
from slm_vllm.tracking.launch import publish_folder
from slm_vllm.tracking.recorder import record_additions, record_finished_run


def sync_run(folder: Path, timeout: float, say: Callable[[str], None]) -> bool:
    """Publishes what the server lacks.

    Args:
        folder: The run folder.
        timeout: Seconds it may take.
        say: Shows a line to the user.

    Returns:
        Whether the server has everything.

    Raises:
        ConfigError: ClearML is not configured, or the run has nothing to publish yet.
        DataError: Its configuration is damaged.
        StorageError: The folder cannot be read or written.
    """
    settings = find_clearml()
    if settings.source is None:
        raise ConfigError("ClearML is not configured; slm-vllm clearml check says how")
    folder = folder.resolve()
    config = read_config(folder)
    if config is None:
        raise DataError(f"{folder / names.CONFIG} is missing; without it nothing can be published")
    try:
        if not (folder / names.SPOOL).exists():
            if not (folder / names.RESULTS).exists():
                raise ConfigError(f"{folder}: was not tracked and has no results yet")
            record_finished_run(folder, config)
        record_additions(folder)
        return publish_folder(folder, on_server(settings, config.tracking, timeout), say)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be published ({error})") from None

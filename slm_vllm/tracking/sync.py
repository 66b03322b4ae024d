"""Publishes the spool of a run whose process has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, StorageError
from slm_vllm.tracking.clearml.settings import find_clearml
from slm_vllm.tracking.launch import outcome, start_publisher, wait_for
from slm_vllm.tracking.recorder import SPOOL, record_finished_run

_TRACKER = "clearml"


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
        StorageError: The folder cannot be read or written.
    """
    settings = find_clearml()
    if settings.source is None:
        raise ConfigError("ClearML is not configured; slm-vllm clearml check says how")
    folder = folder.resolve()
    config = _config(folder)
    environment = dict(settings.environment)
    if config.tracking.output_uri is not None:
        environment["SLM_VLLM_OUTPUT_URI"] = config.tracking.output_uri
    try:
        if not (folder / SPOOL).exists():
            if not (folder / "results.json").exists():
                raise ConfigError(f"{folder}: was not tracked and has no results yet")
            record_finished_run(folder, config)
        log = folder / SPOOL.parent / "publisher.log"
        process = start_publisher(_TRACKER, timeout, environment, log)
        assert process.stdin is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
    except OSError as error:
        raise StorageError(f"{folder}: cannot be published ({error})") from None
    delivered = wait_for(process, timeout)
    say(outcome(folder, _TRACKER))
    return delivered


def _config(folder: Path) -> Config:
    path = folder / "config.yaml"
    try:
        return Config.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"{path}: cannot be read as a configuration ({reason})") from None

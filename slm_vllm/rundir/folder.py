"""The run folder: locking, and atomic writes into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import polars as pl
import yaml

from slm_vllm import durable
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, StorageError, reason_of
from slm_vllm.rundir import names
from slm_vllm.rundir.files import if_readable, read_config
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.rundir.log_rotation import LOGS_KEPT, rotated
from slm_vllm.rundir.settings import changed_settings

_MOST_NAMED = 3
_VALUE_LENGTH = 60


class RunFolder:
    """`<output_dir>/<name>/`, locked for one process.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def journal(self) -> Path:
        """Answers as they come."""
        return self.path / names.JOURNAL

    @property
    def repeated(self) -> Path:
        """Answers to rows that were asked again."""
        return self.path / names.REPEATED

    @property
    def log(self) -> Path:
        """What the run did."""
        return self.path / names.LOG

    @property
    def engine_log(self) -> Path:
        """What the engine and the libraries under it wrote; runs of one command share one."""
        return self.path / names.ENGINE_LOG

    @property
    def rejected(self) -> Path:
        """Rows of the dataset that were left out."""
        return self.path / names.REJECTED

    def lock(self, otherwise: str = "choose another folder with --name") -> None:
        """Makes the folder where there is none, and locks it where it is not yet.

        Args:
            otherwise: What to do but wait where another process uses it.

        Raises:
            StorageError: It cannot be written, or another process uses it.
        """
        if self._lock is not None:
            return
        with self._in_use():
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = durable.take_lock(self.path / names.LOCK)
        if self._lock is None:
            raise StorageError(
                f"{self.path}: another process is running in this folder. Wait for it, stop "
                f"it, or {otherwise}"
            )

    def open(self, config: Config, *, overwrite: bool = False) -> bool:
        """Locks the folder, and takes up an earlier run in it or begins one.

        Returns:
            Whether there is an earlier run to resume.

        Raises:
            ConfigError: It holds a run of another configuration.
            StorageError: It cannot be written, or another process uses it.
        """
        self.lock()
        with self._in_use():
            if overwrite:
                self._clear()
            has_answers = self.holds_answers(config)
            self.write_text(names.CONFIG_HASH, config_hash(config) + "\n")
            return has_answers

    def holds_answers(self, config: Config) -> bool:
        """Whether there are answers of this very configuration.

        Raises:
            ConfigError: There are answers of another one. A run that failed before its first
                answer is in nobody's way.
        """
        if not self.journal.exists() or self.journal.stat().st_size == 0:
            if self._stored_hash() is None and (self.path / names.RESULTS).exists():
                raise ConfigError(
                    self._foreign(
                        "results of another program or of an earlier one (slm-vllm adopt takes "
                        "those over)"
                    )
                )
            return False
        found = self._stored_hash()
        if found is None:
            raise ConfigError(self._foreign("answers of an unknown configuration"))
        if found != config_hash(config):
            raise ConfigError(
                self._foreign(f"a run of another configuration{self._differences(config)}")
            )
        return True

    def close(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def share_engine_log(self, other: RunFolder) -> None:
        """Leads from here to the engine's log in the folder of another run of the command."""
        with suppress(OSError):  # a file system without links; the run's own log names the place
            self.engine_log.unlink(missing_ok=True)
            self.engine_log.symlink_to(os.path.relpath(other.engine_log, self.path))

    def write_text(self, name: str, text: str) -> None:
        """Writes a file that is there whole or not at all."""
        with self.replacing(name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON object that is there whole or not at all."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")

    def write_config(self, config: Config) -> None:
        """Writes the configuration of the run."""
        content = config.model_dump(mode="json")
        self.write_text(names.CONFIG, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A temporary path whose file takes the place of `name` when the block ends well.

        Raises:
            StorageError: It could not be written.
        """
        path = self.path / name
        try:
            # The lock makes this process the only writer.
            with durable.replacing(path, path.with_name(f".{name}.partial")) as temporary:
                yield temporary
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StorageError(f"{path}: cannot be written ({reason_of(error)})") from None

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Says of what the operating system refuses that another folder is needed."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be used as run folder ({reason_of(error)}). "
                "Choose another with --output-dir"
            ) from None

    def _stored_hash(self) -> str | None:
        path = self.path / names.CONFIG_HASH
        return path.read_text(encoding="utf-8").strip() if path.exists() else None

    def _clear(self) -> None:
        """Removes the earlier run, which `--overwrite` asks for; foreign files stay."""
        logs = [
            rotated(log, age).name
            for log in (self.log, self.engine_log)
            for age in range(1, LOGS_KEPT + 1)
        ]
        for name in (*names.WRITTEN, *logs):
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _differences(self, config: Config) -> str:
        """Which settings differ from those of the run that is there, as far as that is known."""
        before = if_readable(read_config, self.path)
        changes = {} if before is None else changed_settings(before, config)
        if not changes:
            return ""
        parts = [
            f"{key} is {_shortened(now)} and was {_shortened(old)}"
            for key, (old, now) in list(changes.items())[:_MOST_NAMED]
        ]
        more = len(changes) - len(parts)
        return f" ({'; '.join(parts)}{f'; and {more} more' if more else ''})"

    def _foreign(self, what: str) -> str:
        return (
            f"{self.path} holds {what}. Give this run a name of its own with --name, or replace "
            "the earlier one with --overwrite"
        )


def _shortened(value: str) -> str:
    """A value in one line; texts that differ late are still told apart by their length."""
    line = " ".join(value.split())
    if len(line) <= _VALUE_LENGTH:
        return line
    return f"{line[:_VALUE_LENGTH]}... ({len(value)} characters)"

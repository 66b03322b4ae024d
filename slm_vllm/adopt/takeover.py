"""The import as a whole: what it would do, and doing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slm_vllm.adopt.checkout import OldCheckout
from slm_vllm.adopt.configuration import NewConfiguration, new_configuration
from slm_vllm.adopt.old_runs import OldRun, read_old_run
from slm_vllm.adopt.taken_run import TakenRun, take_run
from slm_vllm.config.compose import compose_config
from slm_vllm.errors import ConfigError, SlmVllmError
from slm_vllm.rundir.lookup import is_run


@dataclass(frozen=True)
class Takeover:
    """A checkout, and where its parts go.

    Attributes:
        checkout: The earlier checkout.
        config_dir: Where its configuration is written.
        runs_dir: Where the folders of its runs are written.
    """

    checkout: OldCheckout
    config_dir: Path
    runs_dir: Path

    def configuration(self) -> NewConfiguration:
        """What would be written."""
        return new_configuration(self.checkout)

    def write_configuration(self, made: NewConfiguration) -> str | None:
        """Writes it and returns what is wrong with it, None where it composes.

        Raises:
            ConfigError: There is a configuration that is not of an earlier takeover.
            StorageError: It cannot be written.
        """
        for name, text in made.files.items():
            path = self.config_dir / name
            if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != text:
                raise ConfigError(
                    f"{path} is there already and is another. Give a new folder with --config-dir"
                )
        made.write(self.config_dir)
        try:
            compose_config((), self.config_dir)
        except SlmVllmError as error:
            return str(error)
        return None

    def runs(self) -> Iterator[OldRun | str]:
        """Its runs; in place of one that cannot be read, why."""
        for folder in self.checkout.run_folders:
            try:
                yield read_old_run(self.checkout, folder)
            except SlmVllmError as error:
                yield str(error)

    def place(self, run: OldRun) -> Path:
        """The run folder of a run."""
        return self.runs_dir / run.name

    def take(self, run: OldRun) -> TakenRun | None:
        """Writes a run; None where it was taken over before.

        Raises:
            StorageError: It cannot be written.
        """
        folder = self.place(run)
        return None if is_run(folder) else take_run(self.checkout, run, folder)

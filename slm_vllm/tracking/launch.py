"""Tracking from the run's side: recorders for its folders, and the publisher process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from slm_vllm.config.schema import TrackingConfig
from slm_vllm.rundir.names import PUBLISHER_LOG, SPOOL
from slm_vllm.tracking.base import Publication
from slm_vllm.tracking.cursor import cursor_path, read_cursor
from slm_vllm.tracking.recorder import NullRecorder, Recorder
from slm_vllm.tracking.registry import AUTOMATIC, tracker_class
from slm_vllm.tracking.spool import read_spool, spool_size

PUBLISHER = (sys.executable, "-m", "slm_vllm.tracking.publisher")
_INTERRUPTED_SECONDS = 10.0
_KILL_SECONDS = 3.0
Say = Callable[[str], None]


class Tracking(AbstractContextManager["Tracking"]):
    """Nobody is told: `--no-clearml`, `tracking.tracker=none`, or no SDK."""

    def recorder(self, folder: Path) -> NullRecorder:
        """Where the run in a folder says what happens."""
        return NullRecorder()

    @property
    def pid(self) -> int | None:
        """The publisher's process, None when there is none."""
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends it."""


class PublishedTracking(Tracking):
    """Spools of run folders and one publisher process for all of them.

    Whatever goes wrong with the publisher is said, and does not change how the run ends.

    Args:
        publication: Of which tracker, and how.
        say: Shows a line to the user.
    """

    def __init__(self, publication: Publication, say: Say) -> None:
        self._publication, self._say = publication, say
        self._folders: list[Path] = []
        self._process: subprocess.Popen[str] | None = None

    def recorder(self, folder: Path) -> NullRecorder:
        """A recorder whose events are published from now on."""
        folder = folder.resolve()
        if folder not in self._folders:
            self._folders.append(folder)
            self._announce(folder)
        return Recorder(folder)

    @property
    def pid(self) -> int | None:
        """The publisher's process, None when it did not start."""
        return None if self._process is None else self._process.pid

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits a bounded time for the publisher and says what came of it."""
        if self._process is None:
            return
        bound = self._publication.bound
        if kind is not None and not issubclass(kind, Exception):
            bound = min(bound, _INTERRUPTED_SECONDS)
        if not any(map(spool_size, self._folders)):
            bound = 0.0  # refused before it began: nothing is to be told, and it may be connecting
        wait_for(self._process, bound)
        for folder in self._folders:
            if (folder / SPOOL).exists():
                self._say(_outcome(folder, self._publication))

    def _announce(self, folder: Path) -> None:
        try:
            if self._process is None:
                log = folder / PUBLISHER_LOG
                log.parent.mkdir(exist_ok=True)
                self._process = start_publisher(self._publication, log)
            _name_folder(self._process, folder)
        except OSError as error:
            self._say(f"The publisher of {self._publication.tracker} did not start: {error}")


def open_tracking(config: TrackingConfig, *, enabled: bool, say: Say) -> Tracking:
    """Finds out who wants to know about the run.

    Args:
        config: What is configured.
        enabled: False for `--no-clearml`.
        say: Shows a line to the user.

    Raises:
        ConfigError: There is no such tracker.
        SlmVllmError: A tracker was asked for by name and cannot be used.
    """
    if not enabled or config.tracker == "none":
        return Tracking()
    asked = config.tracker != "auto"
    tracker = tracker_class(config.tracker if asked else AUTOMATIC)
    publication = tracker.arrange(config, asked=asked)
    if publication.note:
        say(publication.note)
    if publication.tracker is None:
        return Tracking()
    return PublishedTracking(publication, say)


def publish_folder(folder: Path, publication: Publication, say: Say) -> bool:
    """Publishes what a run that has ended has still to say.

    Returns:
        Whether everything is delivered.

    Raises:
        OSError: The publisher could not be started.
    """
    process = start_publisher(publication, folder / PUBLISHER_LOG)
    _name_folder(process, folder)
    delivered = wait_for(process, publication.bound)
    say(_outcome(folder, publication))
    return delivered


def _name_folder(process: subprocess.Popen[str], folder: Path) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()


def start_publisher(publication: Publication, log: Path) -> subprocess.Popen[str]:
    """Starts the publisher; its standard input takes run folders.

    Raises:
        OSError: It could not be started.
    """
    # It should be through, and have left word, before its end is forced.
    bound = max(1.0, publication.bound - 1.0)
    command = [*PUBLISHER, str(publication.tracker), "--bound", str(bound)]
    with log.open("a", encoding="utf-8") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=dict(publication.environment),
            text=True,
            # Ctrl-C in the terminal is for the run.
            start_new_session=True,
        )


def wait_for(process: subprocess.Popen[str], bound: float) -> bool:
    """Ends the publisher's input and waits; one that hangs is killed.

    Returns:
        Whether it delivered everything.
    """
    try:
        assert process.stdin is not None
        with suppress(OSError):  # it has ended already
            process.stdin.close()
        return process.wait(bound) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        # Also when a signal breaks the wait off.
        if process.poll() is None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # it ends when the machine gets to it
                process.wait(_KILL_SECONDS)


def _outcome(folder: Path, publication: Publication) -> str:
    """One line on what became of a run's delivery."""
    tracker = str(publication.tracker)
    service, cursor = tracker_class(tracker), read_cursor(cursor_path(folder, tracker))
    # A run that went on has more to say than what an earlier publisher delivered.
    if (
        cursor is not None
        and cursor.delivered
        and not any(read_spool(folder / SPOOL, cursor.spool))
    ):
        return f"{service.title}: {cursor.url}"
    problem = cursor.problem if cursor is not None and cursor.problem else "it ran out of time"
    return service.undelivered(folder, problem)

"""Publishes the spool of one run through a tracker, each event once.

Before anything is sent, the cursor says what; when the tracker has come back, that it arrived. A
publisher that finds such a note and no acknowledgement hands the same events to the tracker again
and says so, and the tracker asks the server what it has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from slm_vllm import durable
from slm_vllm.rundir.names import LOG, SPOOL
from slm_vllm.tracking.base import MakeTracker, TrackerError
from slm_vllm.tracking.cursor import Cursor, Span, cursor_path, load_cursor, save_cursor
from slm_vllm.tracking.events import Artifact, Ended, Event, Sample, Started, Text
from slm_vllm.tracking.spool import read_spool

_MOST_EVENTS = 500
_MOST_LOG_BYTES, _MOST_KEPT_BYTES = 1 << 20, 1 << 26
_TEXT_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class _Batch:
    """Events of one span; `files` with their byte offsets in the spool."""

    started: Started | None
    reports: list[Event]
    files: list[tuple[Sample | Artifact, int]]
    ended: Ended | None


class NothingRecordedError(TrackerError):
    """A run that was refused before it began; there is nothing to deliver, now or later."""


class Delivery:
    """One run folder on its way to one service.

    Args:
        folder: The run folder.
        make: Makes the tracker.
        name: Its name.
        destination: The server.
        from_nothing: Forget what an earlier publisher did: the service keeps nothing.

    Raises:
        TrackerError: Another publisher is at work on this folder.
    """

    def __init__(
        self,
        folder: Path,
        make: MakeTracker,
        name: str,
        destination: str,
        *,
        from_nothing: bool = False,
    ) -> None:
        self.folder = folder
        self._path = cursor_path(folder, name)
        self._path.parent.mkdir(exist_ok=True)
        lock = durable.take_lock(self._path.with_suffix(".lock"))
        if lock is None:
            raise TrackerError(f"{folder}: another publisher is at work there; wait for it to end")
        self._lock = lock
        loaded = load_cursor(self._path, destination)
        self.cursor = Cursor(destination=destination) if from_nothing else loaded
        # What keeps nothing must be told everything at once.
        self._most_events = None if from_nothing else _MOST_EVENTS
        self._most_bytes = _MOST_KEPT_BYTES if from_nothing else _MOST_LOG_BYTES
        self._tracker = make(folder, self.cursor.memory, self._save)

    def step(self, *, last: bool = False) -> bool:
        """Publishes some of what there is to publish.

        Args:
            last: The run's process has ended: an incomplete last line of the log is all of it.

        Returns:
            Whether there may be more.

        Raises:
            TrackerError: The service could not be told; the next step tries again.
        """
        cursor = self.cursor
        uncertain = cursor.pending is not None
        span = cursor.pending or self._next_span(last)
        if span is None:
            return False
        cursor.delivered = False
        cursor.pending = span
        self._save()
        texts = list(self._texts(span))
        batch = self._batch(span.spool_to)
        if batch.started is not None:
            self._tracker.start(batch.started)
            cursor.url = self._tracker.url
        reports = [*batch.reports, *texts]
        if reports:
            self._tracker.report(reports, uncertain=uncertain)
        self._attach(batch.files)
        if batch.ended is not None:
            self._tracker.end(batch.ended)
            cursor.ended = batch.ended.phase
        elif batch.started is not None:
            cursor.ended = None
        cursor.spool, cursor.log = span.spool_to, span.log_to
        cursor.texts += len(texts)
        cursor.time = texts[-1].time if texts else cursor.time
        cursor.pending = None
        self._save()
        return True

    def finish(self) -> None:
        """Publishes the rest of a run whose process has ended, and reads it back.

        Raises:
            TrackerError: Something is not delivered; `problem` in the cursor says what.
        """
        while self.step(last=True):
            pass
        if not self.cursor.spool:
            raise NothingRecordedError(f"{self.folder}: nothing was recorded")
        self._attach_deferred()
        if self.cursor.ended is None:
            self._tracker.end(Ended("died"))
            self.cursor.ended = "died"
            self._save()
        if self.cursor.deferred:
            raise TrackerError(self.cursor.problem or "files could not be stored")
        if not self.cursor.delivered:
            events = [event for event, _ in read_spool(self.folder / SPOOL)]
            missing = self._tracker.missing(events, self.cursor.texts, self.cursor.ended)
            if missing:
                raise TrackerError(f"the server lacks {', '.join(missing)}")
        self.cursor.delivered, self.cursor.problem = True, None
        self._save()

    @property
    def run_has_ended(self) -> bool:
        """Whether that is the last it said."""
        ended = False
        for event, _ in read_spool(self.folder / SPOOL):
            ended = isinstance(event, Ended)
        return ended

    def note(self, problem: str) -> None:
        """Leaves word for whoever waits for this delivery."""
        if self.cursor.problem != problem:
            self.cursor.problem = problem
            self._save()

    def close(self) -> None:
        """Lets another publisher at the folder."""
        self._lock.close()

    def _save(self) -> None:
        save_cursor(self._path, self.cursor)

    def _next_span(self, last: bool) -> Span | None:
        cursor = self.cursor
        spool_to = cursor.spool
        for _, end in islice(read_spool(self.folder / SPOOL, cursor.spool), self._most_events):
            spool_to = end
        if not spool_to:
            return None  # the log has no task to go to yet
        log_to = self._log_end(last)
        if (spool_to, log_to) == (cursor.spool, cursor.log):
            return None
        return Span(spool_to, log_to, max(cursor.time + 1, int(time.time() * 1000)))

    def _log_end(self, last: bool) -> int:
        """Where the next span of the log ends: at the end of a line, if there is one."""
        path = self.folder / LOG
        size = path.stat().st_size if path.exists() else 0
        if size < self.cursor.log:
            self.cursor.log = 0  # it was rotated
        start = self.cursor.log
        if size == start:
            return start
        data = _read(path, start, min(size, start + self._most_bytes))
        whole = data.rfind(b"\n") + 1
        if whole == 0 and (last or len(data) == self._most_bytes):
            whole = len(data)
        return start + (len(data) if last and start + len(data) == size else whole)

    def _texts(self, span: Span) -> Iterator[Text]:
        """The log of a span; the same span always gives the same texts."""
        data = _read(self.folder / LOG, self.cursor.log, span.log_to)
        moment = span.time
        while data:
            cut = len(data)
            if cut > _TEXT_BYTES:
                cut = data.rfind(b"\n", 0, _TEXT_BYTES) + 1 or _TEXT_BYTES
            yield Text(data[:cut].decode("utf-8", "replace"), moment)
            data, moment = data[cut:], moment + 1

    def _batch(self, spool_to: int) -> _Batch:
        started: Started | None = None
        ended: Ended | None = None
        reports: list[Event] = []
        files: dict[object, tuple[Sample | Artifact, int]] = {}
        offset = self.cursor.spool
        for event, end in read_spool(self.folder / SPOOL, offset):
            if end > spool_to:
                break
            if isinstance(event, Started):
                started, ended = event, None
            elif isinstance(event, Ended):
                ended = event
            elif isinstance(event, Artifact):
                files[event.name] = (event, offset)
            elif isinstance(event, Sample):
                files[event.title, event.series, event.step] = (event, offset)
            else:
                reports.append(event)
            offset = end
        return _Batch(started, reports, list(files.values()), ended)

    def _attach(self, files: Sequence[tuple[Sample | Artifact, int]]) -> None:
        """Publishes files; when the storage is away, the rest waits and the run can end."""
        deferred = list(self.cursor.deferred)
        problem: str | None = None
        for file, offset in files:
            if problem is None:
                try:
                    self._tracker.attach(file)
                    continue
                except TrackerError as error:
                    problem = str(error)
            if offset not in deferred:
                deferred.append(offset)
        self.cursor.deferred = deferred
        if problem is not None:
            self.cursor.problem = problem

    def _attach_deferred(self) -> None:
        waiting, self.cursor.deferred = self.cursor.deferred, []
        files = []
        for offset in waiting:
            event = next(read_spool(self.folder / SPOOL, offset))[0]
            assert isinstance(event, (Sample, Artifact))
            files.append((event, offset))
        self._attach(files)
        if waiting:
            self._save()


def _read(path: Path, start: int, end: int) -> bytes:
    if end <= start:
        return b""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)

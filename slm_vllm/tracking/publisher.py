"""The publisher process: publishes runs while they go on and after they ended.

    python -m slm_vllm.tracking.publisher TRACKER --bound SECONDS

Each line of standard input is a run folder to look after. The end of the input says that their
process has ended: what is left is published within the bound, then the publisher ends. It exits
with 0 when everything is delivered.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from slm_vllm.errors import SlmVllmError
from slm_vllm.tracking.base import MakeTracker, RejectedError, TrackerError
from slm_vllm.tracking.cursor import Cursor, cursor_path, read_cursor, save_cursor
from slm_vllm.tracking.delivery import Delivery, NothingRecordedError
from slm_vllm.tracking.registry import tracker_class
from slm_vllm.tracking.spool import spool_size

FIRST_INTERVAL, LONGEST_INTERVAL = 3.0, 30.0
FIRST_RETRY, _LONGEST_RETRY = 5.0, 60.0
_GRACE_SECONDS = 2.0


class Publisher:
    """Looks after the run folders it is told of.

    Args:
        tracker: Name of the tracker.
        bound: Seconds for what is left when the input has ended.
    """

    def __init__(self, tracker: str, bound: float) -> None:
        self._name, self._bound = tracker, bound
        self._tracker = tracker_class(tracker)
        self._deliveries: dict[Path, Delivery] = {}
        self._waiting: list[Path] = []
        self._sizes: dict[Path, int] = {}
        self._reported: dict[Path, SlmVllmError | None] = {}
        self._connected: tuple[str, MakeTracker] | None = None
        self._started = time.monotonic()

    def run(self, lines: queue.Queue[str | None]) -> bool:
        """Publishes until the input ends, then the rest.

        Args:
            lines: Run folders; None is the end.

        Returns:
            Whether everything is delivered.
        """
        retry = 0.0
        while True:
            open_input = self._take(lines, max(self._interval(), retry))
            if not open_input:
                break
            retry = self._round(retry) if self._tracker.is_live else self._finish_ended()
        _watchdog(self._bound + _GRACE_SECONDS)
        return self._finish(time.monotonic() + self._bound)

    def _interval(self) -> float:
        """Seconds between rounds: a long run is not told of more often than it needs."""
        age = time.monotonic() - self._started
        return min(LONGEST_INTERVAL, max(FIRST_INTERVAL, age / 100))

    def _take(self, lines: queue.Queue[str | None], seconds: float) -> bool:
        """Waits, and takes the folders that come meanwhile; False when the input has ended."""
        until = time.monotonic() + seconds
        while True:
            try:
                line = lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return True
            if line is None:
                return False
            folder = Path(line)
            self._waiting.append(folder)
            self._sizes[folder] = spool_size(folder)

    def _round(self, retry: float) -> float:
        """Publishes what there is; returns how long to wait after a failure."""
        try:
            for delivery in self._opened().values():
                while delivery.step():
                    pass
        except RejectedError as error:
            self._note(error)
            return _LONGEST_RETRY
        except Exception as error:
            self._note(_as_problem(error))
            return min(_LONGEST_RETRY, max(2 * retry, FIRST_RETRY))
        return 0.0

    def _finish_ended(self) -> float:
        """Publishes runs that have ended while others of their command go on."""
        try:
            for folder, delivery in self._opened().items():
                # What was there before is of an earlier command, and will be resumed.
                news = spool_size(folder) > self._sizes[folder]
                if news and delivery.run_has_ended:
                    self._finish_one(delivery)
        except Exception as error:
            self._note(_as_problem(error))
        return 0.0

    def _finish(self, deadline: float) -> bool:
        wait = 0.5
        while True:
            try:
                problems = [self._finish_one(delivery) for delivery in self._opened().values()]
            except Exception as error:
                problems = [_as_problem(error)]
            left = [problem for problem in problems if problem is not None]
            for problem in left:
                _say(problem)
            if not left:
                return True
            final = (
                not self._tracker.is_live
                or any(isinstance(problem, RejectedError) for problem in left)
                or all(isinstance(problem, NothingRecordedError) for problem in left)
            )
            if final or time.monotonic() + wait >= deadline:
                self._note(left[0])
                return False
            time.sleep(wait)
            wait = min(2 * wait, 5.0)

    def _finish_one(self, delivery: Delivery) -> SlmVllmError | None:
        if delivery.folder in self._reported:
            return self._reported[delivery.folder]
        problem = None
        # Also where all is delivered: that may be from before the run went on.
        try:
            delivery.finish()
        except Exception as error:
            problem = _as_problem(error)
            delivery.note(str(problem))
        if not self._tracker.is_live:  # it is told everything, once
            self._reported[delivery.folder] = problem
        return problem

    def _note(self, error: SlmVllmError) -> None:
        """Leaves the problem in every folder that waits for this server."""
        _say(error)
        for delivery in self._deliveries.values():
            if not delivery.cursor.delivered:
                delivery.note(str(error))
        for folder in self._waiting:
            _note_problem(folder, self._name, str(error))

    def _opened(self) -> dict[Path, Delivery]:
        """Opens the folders that wait, which needs the server, and gives all of them."""
        while self._waiting:
            folder = self._waiting[0]
            if self._connected is None:
                self._connected = self._tracker.connect()
            destination, make = self._connected
            self._deliveries[folder] = Delivery(
                folder, make, self._name, destination, from_nothing=not self._tracker.is_live
            )
            self._waiting.pop(0)
        return self._deliveries


def _note_problem(folder: Path, tracker: str, problem: str) -> None:
    """Leaves word in a folder that could not even be opened for the tracker."""
    path = cursor_path(folder, tracker)
    path.parent.mkdir(exist_ok=True)
    cursor = read_cursor(path) or Cursor()
    cursor.problem, cursor.delivered = problem, False
    save_cursor(path, cursor)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tracker")
    parser.add_argument("--bound", type=float, required=True)
    given = parser.parse_args()
    # The run says when to end, by closing the input; what a terminal or a service manager sends
    # to the whole group would cut off what the run has still to say.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    # What is told of a run at its end does nothing before it, and then the run waits for it.
    if tracker_class(given.tracker).is_live:
        give_way()
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    delivered = Publisher(given.tracker, given.bound).run(lines)
    sys.stderr.flush()
    # The SDK's threads and exit handlers may wait for a server; everything is on the disk.
    os._exit(0 if delivered else 1)


def give_way() -> None:
    """Leaves the processors to the run: it is what the machine is for."""
    os.nice(19)
    # A session of its own is scheduled as a group of its own where the kernel groups by session;
    # the niceness of a process counts within its group only (sched(7), "The autogroup feature").
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


def _read(lines: queue.Queue[str | None]) -> None:
    for line in sys.stdin:
        if line.strip():
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _as_problem(error: Exception) -> SlmVllmError:
    """What to tell the user; a defect also leaves its traceback in the publisher's log."""
    if isinstance(error, SlmVllmError):
        return error
    traceback.print_exception(error)
    return TrackerError(f"{type(error).__name__}: {error}"[:300])


def _watchdog(seconds: float) -> None:
    """Ends the process after so long whatever it hangs in."""

    def end() -> None:
        time.sleep(seconds)
        _say(TrackerError(f"ended after {seconds:.0f} s"))
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _say(error: SlmVllmError) -> None:
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    print(f"{moment} {type(error).__name__}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""Adapts the number of concurrent requests to one server to how it answers."""

from __future__ import annotations

import time
from collections.abc import Callable

_GAIN = 1.15  # answers a second that twice as many at once must bring to be worth it
_REST = 10  # rounds until a limit that brought nothing is tried again
_FEWEST = 16  # answers that a rate is measured over


class AdaptiveLimit:
    """Doubles while that brings more answers a second; halves when the server complains.

    A round is as many answers as the limit allows at once. What was sent under an earlier limit is
    not counted. Where twice as many bring no more, they only wait at the server: the limit goes
    back, and is tried again after some rounds. A complaint (429, 503, a time-out) halves it, once
    for all requests that were under way together; from then on it grows by one a round, rests below
    what was refused, and each further complaint takes a quarter of it.

    Args:
        start: The limit at the beginning.
        most: It never grows above this.
        clock: Seconds.
    """

    def __init__(self, start: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = min(start, most)
        self.in_flight = 0
        self.highest = 0
        self._most, self._clock = most, clock
        self._sent = 0
        self._ignored_before = 0
        self._complained = False
        self._refused_at = 0
        self._is_used = False
        self._proven = 0  # the limit to go back to, while a larger one is tried
        self._rate = 0.0  # of answers under it
        self._rest = 0
        self._begin()

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return self.in_flight < self.limit

    def send(self) -> int:
        """Notes that a request goes out; returns its number, for the methods below."""
        self.in_flight += 1
        self.highest = max(self.highest, self.in_flight)
        self._is_used = self._is_used or self.in_flight >= self.limit
        self._sent += 1
        return self._sent

    def answered(self) -> None:
        """A request came back with an answer."""
        self.in_flight -= 1
        self._answers += 1
        if self._answers == self._skip:
            self._since = self._clock()
        if self._answers >= self._skip + self._round:
            self._end_round()

    def refused(self, number: int) -> bool:
        """A request came back with a complaint about load; whether it is a new event."""
        self.in_flight -= 1
        if number <= self._ignored_before:
            return False
        self._refused_at = self.limit
        # The first time it may have doubled to twice what the server takes; later it was near.
        self.limit = max(1, self.limit * 3 // 4 if self._complained else self.limit // 2)
        self._complained, self._rest = True, _REST
        self._ignored_before = self._sent
        self._begin()
        return True

    def failed(self) -> None:
        """A request came back with what says nothing about load."""
        self.in_flight -= 1

    @property
    def _round(self) -> int:
        return self.limit if self._complained else max(self.limit, _FEWEST)

    def _begin(self, skip: int = 0) -> None:
        self._skip, self._answers = skip, 0
        self._since = self._clock()
        self._is_used = False

    def _end_round(self) -> None:
        rate = self._round / max(self._clock() - self._since, 1e-9)
        if not self._is_used:
            # A limit that is not used says nothing about what the server can take.
            self._begin()
        elif self._complained and self._rest and self.limit + 1 >= self._refused_at:
            self._rest -= 1
            self._begin()
        elif self._complained:
            self.limit = min(self.limit + 1, self._most)
            self._begin()
        elif self._proven and rate < _GAIN * self._rate:
            self.limit, self._proven, self._rest = self._proven, 0, _REST
            self._begin(skip=self.in_flight)
        elif self._rest:
            self._rest, self._rate = self._rest - 1, rate
            self._begin()
        elif self.limit < self._most:
            self._proven, self._rate = self.limit, rate
            self.limit = min(2 * self.limit, self._most)
            self._begin(skip=self._proven)
        else:
            self._proven = 0
            self._begin()

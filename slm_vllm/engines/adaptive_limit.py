"""How many requests one server gets at once, found out from how it answers."""

from __future__ import annotations


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, as TCP does it.

    The limit doubles with each round of answers until the server first complains, and from then
    on grows by one a round. A complaint (429, 503, a time-out) halves it, once for all requests
    that were under way together: their complaints are one event.

    Args:
        start: The limit at the beginning.
        most: It never grows above this.
    """

    def __init__(self, start: int, most: int) -> None:
        self._limit = float(min(start, most))
        self._most = most
        self._doubling = True
        self._sent = 0
        self._ignored_before = 0
        self.in_flight = 0
        self.highest = 0

    @property
    def limit(self) -> int:
        """Requests that may be under way now; at least 1."""
        return int(self._limit)

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return self.in_flight < self.limit

    def send(self) -> int:
        """Notes that a request goes out; returns its number, for the methods below."""
        self.in_flight += 1
        self.highest = max(self.highest, self.in_flight)
        self._sent += 1
        return self._sent

    def answered(self) -> None:
        """A request came back with an answer."""
        # A limit that is not used says nothing about what the server can take.
        if self.in_flight >= self.limit:
            self._limit += 1.0 if self._doubling else 1.0 / self._limit
            self._limit = min(self._limit, float(self._most))
        self.in_flight -= 1

    def refused(self, number: int) -> bool:
        """A request came back with a complaint about load; whether it is a new event."""
        self.in_flight -= 1
        if number <= self._ignored_before:
            return False
        self._limit = max(1.0, self._limit / 2)
        self._doubling = False
        self._ignored_before = self._sent
        return True

    def failed(self) -> None:
        """A request came back with what says nothing about load."""
        self.in_flight -= 1

"""The limit against servers that exist on a clock of the test alone."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.engines.adaptive_limit import AdaptiveLimit


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class SimulatedServer:
    """Answers so many at once; what is more than that waits or is refused.

    Attributes:
        slots: Requests worked on at once.
        alone: Seconds of an answer with nothing beside it.
        full: Seconds of one in a full batch.
        refuses: Whether more than the slots hold is refused.
        spread: Standard deviation of an answer's seconds, relative to them.
    """

    slots: int
    alone: float
    full: float
    refuses: bool = False
    spread: float = 0.0
    most_waiting: int = 0
    refused: int = 0
    clock: Clock = field(default_factory=Clock)

    def ask(self, limit: AdaptiveLimit, count: int) -> float:
        """Asks so many questions; returns the seconds until the last answer."""
        chance = random.Random(1)
        ends: list[tuple[float, int, bool]] = []
        queue: list[int] = []
        working = done = 0
        left, paused_until = count, 0.0

        def work(number: int) -> None:
            nonlocal working
            working += 1
            seconds = self.alone + (self.full - self.alone) * working / self.slots
            seconds *= max(0.1, chance.gauss(1, self.spread))
            heapq.heappush(ends, (self.clock.now + seconds, number, True))

        while done < count:
            while left and limit.has_room and self.clock.now >= paused_until:
                number, left = limit.send(), left - 1
                if working < self.slots:
                    work(number)
                elif self.refuses:
                    heapq.heappush(ends, (self.clock.now + 0.001, number, False))
                else:
                    queue.append(number)
                    self.most_waiting = max(self.most_waiting, len(queue))
            if not ends:
                self.clock.now = paused_until
                continue
            self.clock.now, number, is_answer = heapq.heappop(ends)
            if is_answer:
                working, done = working - 1, done + 1
                if queue:
                    work(queue.pop(0))
                limit.answered()
            else:
                self.refused, left = self.refused + 1, left + 1
                limit.refused(number)
                paused_until = self.clock.now + 1.0
        return self.clock.now


def limit_for(server: SimulatedServer, most: int = 512) -> AdaptiveLimit:
    return AdaptiveLimit(16, most, server.clock)


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize(("slots", "seconds"), [(1, 0.05), (4, 0.1), (16, 0.5)])
def test_a_server_that_queues_does_not_get_hundreds(
    slots: int, seconds: float, spread: float
) -> None:
    server = SimulatedServer(slots, seconds, seconds, spread=spread)
    limit = limit_for(server)
    server.ask(limit, 4000)
    assert server.most_waiting <= 128
    assert limit.limit <= 64


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_a_server_that_batches_gets_full_batches(spread: float) -> None:
    """Within a tenth of the time that its slots allow when they are full from the beginning."""
    server = SimulatedServer(256, 0.2, 0.6, spread=spread)
    seconds = server.ask(limit_for(server), 8000)
    assert seconds <= 1.15 * 8000 / 256 * 0.6


def test_a_server_that_refuses_is_asked_for_about_what_it_takes() -> None:
    server = SimulatedServer(32, 0.2, 0.2, refuses=True)
    limit = limit_for(server)
    seconds = server.ask(limit, 4000)
    assert server.refused < 100
    assert 16 <= limit.limit <= 34
    assert seconds <= 1.8 * 4000 / 32 * 0.2


def test_a_limit_that_is_not_used_stays() -> None:
    clock = Clock()
    limit = AdaptiveLimit(16, 512, clock)
    for _ in range(500):
        limit.send()
        clock.now += 0.1
        limit.answered()
    assert limit.limit == 16


def test_what_brought_nothing_is_tried_again() -> None:
    """The server has become a larger one."""
    server = SimulatedServer(16, 0.2, 0.2)
    limit = limit_for(server)
    server.ask(limit, 1000)
    assert limit.limit <= 32
    server.slots = 128
    server.ask(limit, 8000)
    assert limit.limit >= 128


def test_one_event_halves_once() -> None:
    limit = AdaptiveLimit(32, 100, Clock())
    numbers = [limit.send() for _ in range(32)]
    assert [limit.refused(number) for number in numbers[:20]] == [True] + [False] * 19
    assert limit.limit == 16
    later = limit.send()
    assert limit.refused(later) and limit.limit == 12


@given(st.integers(1, 600), st.integers(1, 600), st.lists(st.sampled_from("sarf"), max_size=900))
def test_the_limit_stays_within_its_bounds(start: int, most: int, events: list[str]) -> None:
    clock = Clock()
    limit = AdaptiveLimit(start, most, clock)
    under_way: list[int] = []
    for event in events:
        clock.now += 0.01
        before = limit.limit
        if event == "s":
            under_way.append(limit.send())
        elif under_way:
            number = under_way.pop(0)
            if event == "a":
                limit.answered()
                assert limit.limit <= 2 * before
            elif event == "r":
                new = limit.refused(number)
                after = {max(1, before // 2), max(1, before * 3 // 4)}
                assert limit.limit in (after if new else {before})
            else:
                limit.failed()
                assert limit.limit == before
        assert 1 <= limit.limit <= most
        assert limit.in_flight == len(under_way)

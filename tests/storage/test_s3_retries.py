"""How often a part is tried, and how long between two tries; no server, no clock."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from slm_vllm.storage.faults import Fault, S3Error
from slm_vllm.storage.parts import PartRunner, TransferOptions
from slm_vllm.storage.progress import ByteProgress


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    monkeypatch.setattr(threading.Event, "wait", lambda event, seconds: found.append(seconds))
    return found


def attempts(*outcomes: Fault | bool) -> Callable[[], bool]:
    """An attempt that fails, gets further (False) or is done (True), in this order."""
    left: Iterator[Fault | bool] = iter(outcomes)

    def attempt() -> bool:
        outcome = next(left)
        if isinstance(outcome, Fault):
            raise S3Error(outcome, "no")
        return outcome

    return attempt


def retrying(attempt: Callable[[], bool]) -> None:
    options = TransferOptions(attempts=8, pause=1.0)
    PartRunner(options, ByteProgress("file", 1)).retrying(attempt)


def test_pauses_double_up_to_20_seconds(waits: list[float]) -> None:
    retrying(attempts(*[Fault.NETWORK] * 7, True))
    assert waits == [1, 2, 4, 8, 16, 20, 20]


def test_progress_begins_the_count_anew(waits: list[float]) -> None:
    retrying(attempts(*[Fault.SERVER] * 7, False, *[Fault.NETWORK] * 7, True))
    assert waits == [1, 2, 4, 8, 16, 20, 20] * 2


def test_the_last_of_the_attempts_is_not_waited_for(waits: list[float]) -> None:
    with pytest.raises(S3Error):
        retrying(attempts(*[Fault.NETWORK] * 8, True))
    assert len(waits) == 7


def test_what_would_fail_again_is_not_tried_again(waits: list[float]) -> None:
    with pytest.raises(S3Error):
        retrying(attempts(Fault.CREDENTIALS, True))
    assert waits == []

from __future__ import annotations

import io
import sys

import pytest

from slm_vllm.runs.console import Console
from slm_vllm.runs.progress import Progress
from slm_vllm.types import Completion


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["Paris"], "token recall 1.000"),
        (["?", "🎉"], "nothing scored: no answer of the dataset has a word so far"),
    ],
)
def test_says_when_nothing_can_be_scored(answers: list[str], said: str) -> None:
    progress = Progress(Console(sys.stderr), "run", 2)
    assert "scored" not in progress.line()
    progress.add("Paris", answers, Completion("0", "Paris", "stop", 1, 1))
    assert said in progress.line()


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("slm_vllm.runs.progress.time", clock)
    return clock


def answer(progress: Progress, clock: Clock, count: int, seconds: float) -> None:
    for _ in range(count):
        clock.now += seconds
        progress.add("Paris", ["Paris"], Completion("0", "Paris", "stop", 1, 1))


def test_the_time_left_waits_until_there_is_something_to_go_by(clock: Clock) -> None:
    progress = Progress(Console(io.StringIO()), "run", 491)
    answer(progress, clock, 1, 10.0)  # the first answer waits for the whole batch
    assert progress.seconds_left is None and "ETA" not in progress.line()
    answer(progress, clock, 9, 0.01)
    assert progress.seconds_left is None  # ten answers, in no time
    answer(progress, clock, 30, 0.25)
    assert progress.rate == pytest.approx(39 / 7.59, rel=0.01)
    assert progress.seconds_left == pytest.approx(451 / (39 / 7.59), rel=0.01)


def test_the_rate_is_that_of_the_last_minute(clock: Clock) -> None:
    progress = Progress(Console(io.StringIO()), "run", 10_000)
    answer(progress, clock, 1_000, 0.1)
    assert progress.rate == pytest.approx(10, rel=0.02)
    answer(progress, clock, 200, 1.0)
    assert progress.rate == pytest.approx(1, rel=0.05)


def test_tokens_are_counted_over_the_same_time_as_answers(clock: Clock) -> None:
    progress = Progress(Console(io.StringIO()), "run", 100)
    for seconds in (90.0, *[0.5] * 30):  # the first one waits for all prompts to be read
        clock.now += seconds
        progress.add("Paris", ["Paris"], Completion("0", "Paris", "stop", 1, 20))
    assert "2.0 questions/s  40 tokens/s" in progress.line()


def test_what_the_state_says_is_what_the_line_says(clock: Clock) -> None:
    progress = Progress(Console(io.StringIO()), "run", 60, done_before=20)
    answer(progress, clock, 20, 0.5)
    assert progress.figures() == {
        "done": 40,
        "errors": 0,
        "questions_per_second": 2.0,
        "token_recall": 1.0,
        "token_recall_ci95": [0.838875, 1.0],  # 20 of 20, statsmodels' proportion_confint
        "eta_seconds": 10,
    }
    assert "run: 40/60  2.0 questions/s" in progress.line() and "ETA 0:10" in progress.line()


def test_on_a_terminal_the_log_gets_a_line_now_and_then(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "slm_vllm")
    console = Console(io.StringIO())
    console.is_terminal = True
    progress = Progress(console, "run", 1_000)
    answer(progress, clock, 250, 0.1)  # 25 seconds, some 50 redraws
    assert len(caplog.records) == 2


def test_the_last_line_has_the_rate_of_the_whole(clock: Clock) -> None:
    progress = Progress(Console(io.StringIO()), "run", 60)
    answer(progress, clock, 1, 40.0)
    answer(progress, clock, 59, 0.1)
    assert "60/60  1.3 questions/s" in progress.line()

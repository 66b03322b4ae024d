"""What a signal does to a run, and what a stopped run says."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from slm_vllm.runs.signals import SIGNALS, Interrupted, StopSignals, handled


def test_no_advice_removes_the_answers() -> None:
    stop = Interrupted(signal.SIGTERM)
    assert "; the same command resumes from there" in stop.message(overwrite=False)
    assert "; the same command without --overwrite resumes" in stop.message(overwrite=True)


def test_a_signal_that_is_ignored_stays_ignored(signals_arrive: None) -> None:
    """As nohup has it of SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = [signal.getsignal(number) for number in SIGNALS]
    taken: list[int] = []
    with handled(lambda number, _: taken.append(number)):
        for number in SIGNALS:
            signal.raise_signal(number)
    assert taken == [signal.SIGINT, signal.SIGTERM]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_first_signal_asks_to_stop_and_the_second_ends_the_process(
    signals_arrive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(os, "_exit", sys.exit)
    with StopSignals() as signals:
        signals.wait_out(lambda: asked.append("stop"))
        signal.raise_signal(signal.SIGTERM)
        assert asked == ["stop"]
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted) as stopped:
            signals.raise_at_once()
    assert (ended.value.code, stopped.value.exit_code) == (130, 143)

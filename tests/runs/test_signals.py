"""What a stopped run says."""

from __future__ import annotations

import signal

from slm_vllm.runs.signals import Interrupted


def test_no_advice_removes_the_answers() -> None:
    stop = Interrupted(signal.SIGTERM)
    assert "; the same command resumes from there" in stop.message(overwrite=False)
    assert "; the same command without --overwrite resumes" in stop.message(overwrite=True)

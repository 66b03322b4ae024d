"""`slm_vllm.sweeps.group` with a fake engine; words of its own say how it fails."""

from __future__ import annotations

import os
import signal
import sys

import support.without_torch  # noqa: F401
from slm_vllm.runs.options import RunOptions
from slm_vllm.sweeps.group import main
from support.fake_engine import FakeEngine

MODE = os.environ.get("FAKE_SWEEP", "")


def on_answer(number: int) -> None:
    if MODE == "killed" and number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if MODE == "stopped" and number == 2:
        os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    if MODE == "no start":
        sys.exit(3)
    engine = FakeEngine(on_answer=on_answer)
    sys.exit(main(RunOptions(make_engine=engine.factory(), import_engine=lambda: None)))

"""A run of the fake engine with ClearML on, as a process: it exits as the command line does.

python -m support.tracked_run OVERRIDE...
"""

from __future__ import annotations

import os
import signal
import sys

import support.without_torch  # noqa: F401
from slm_vllm.config.compose import compose_config
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.runs.signals import Interrupted
from slm_vllm.tracking import launch
from support.eager_publisher import PROGRAM
from support.fake_engine import FakeEngine
from support.tracked import UNHURRIED


def main() -> None:
    """Asks all questions; with TERM_AT in the environment gets a SIGTERM at that answer."""
    term_at = int(os.environ.get("TERM_AT", "-1"))

    def stop(number: int) -> None:
        if number == term_at:
            os.kill(os.getpid(), signal.SIGTERM)

    # Also a run that is stopped waits until everything is told, however slow the machine.
    launch._INTERRUPTED_SECONDS = UNHURRIED
    launch.PUBLISHER = PROGRAM
    engine = FakeEngine(on_answer=stop)
    try:
        evaluate(
            [compose_config(sys.argv[1:])],
            RunOptions(make_engine=engine.factory(), own_process=True),
        )
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)
    finally:
        print("asked", len(engine.asked))
        assert "clearml" not in sys.modules


if __name__ == "__main__":
    main()

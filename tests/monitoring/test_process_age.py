"""How long a process has been there."""

from __future__ import annotations

import os
import subprocess
import sys
import time


def test_it_does_not_follow_the_time_of_day() -> None:
    code = (
        "import time; time.time = lambda: 4e9\n"
        "from slm_vllm.monitoring.process_age import process_age\nprint(process_age())"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert 0 < float(done.stdout) <= time.monotonic() - began + tick

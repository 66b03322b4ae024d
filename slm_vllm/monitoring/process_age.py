"""How long this process has been there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil


def process_age() -> float:
    """Seconds since this process began.

    On Linux by the clock since the start of the machine: the time of day may be set meanwhile, and
    leaps where a virtual machine was paused.
    """
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # starttime of proc(5)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, AttributeError):
        return time.time() - psutil.Process().create_time()

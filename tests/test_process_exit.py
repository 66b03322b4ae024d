from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import atexit, sys, threading, types
from slm_vllm.process_exit import exit_process, prepare_exit

class Large:
    def __del__(self):
        print("taken apart")

prepare_exit()
atexit.register(print, "at exit")
kept = types.ModuleType("kept")
kept.large, kept.itself = Large(), kept
for name in sys.argv[1:]:
    sys.modules[name] = types.ModuleType(name)
thread = threading.Timer(0.1, print, ["thread"])
thread.start()
sys.stdout.write("written ")
exit_process(7)
"""


def ended(code: str, *modules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *modules],
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # what is written waits to be flushed
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([], ["written thread", "at exit", "taken apart"]),
        (["torch"], ["written thread", "at exit"]),
    ],
)
def test_all_runs_and_is_written_before_the_end(modules: list[str], said: list[str]) -> None:
    done = ended(CODE, *modules)
    assert done.stdout.splitlines() == said and done.stderr == ""
    assert done.returncode == 7


def test_a_command_that_returns_nothing_has_done_well() -> None:
    done = ended(CODE.replace("exit_process(7)", "exit_process(None)"), "torch")
    assert done.returncode == 0 and "taken apart" not in done.stdout


def test_a_defect_is_told_and_has_python_s_own_code() -> None:
    done = ended(CODE.replace("exit_process(7)", "1 / 0"), "torch")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert "taken apart" in done.stdout

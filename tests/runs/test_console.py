from __future__ import annotations

import io
import os

import pytest

from slm_vllm.runs.console import Console
from support.child import run_python


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_full_disk_under_the_log_leaves_the_terminal_to_the_user() -> None:
    done = run_python(
        """
        import logging, sys
        from pathlib import Path
        from slm_vllm.runs.console import OutputCapture

        logging.raiseExceptions = False
        try:
            with OutputCapture() as capture:
                capture.write_to(Path("/dev/full"))
                logging.getLogger("slm_vllm").info("for the log")
                print("of a library")
                capture.console.say("for the user")
                raise KeyError("of the run")
        except KeyError as error:
            print("told:", error, file=sys.stderr)
        """
    )
    assert done.stderr.splitlines()[:2] == ["for the user", "told: 'of the run'"]


def test_a_terminal_of_another_encoding() -> None:
    done = run_python(
        """
        import io, sys
        sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), encoding="latin-1")
        from slm_vllm.runs.console import OutputCapture
        with OutputCapture() as capture:
            capture.console.say("caf\\xe9 \\u9996".encode("ascii", "backslashreplace").decode())
            capture.console.say("\\u9996\\u90fd")
        """
    )
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "\\u9996\\u90fd"


def test_without_standard_error() -> None:
    done = run_python(
        """
        import sys
        sys.stderr = None
        from slm_vllm.runs.console import RunLog
        with RunLog() as log:
            log.console.say("to nobody")
        """
    )
    assert done.returncode == 0


def test_the_bottom_line_is_the_first_form_that_fits() -> None:
    shown = io.StringIO()  # no terminal: 100 columns
    console = Console(shown)
    console.redraw("#" * 99, "short")
    console.redraw("#" * 100, "short")
    console.redraw("#" * 100, "-" * 120)
    assert shown.getvalue().split("\r\x1b[2K")[1:] == ["#" * 99, "short", "-" * 99]

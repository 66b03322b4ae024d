"""Runs a function that needs the ClearML SDK in a process that is killed when it hangs.

    python -m slm_vllm.tracking.clearml.sdk_process WORK < request.json

Each answer is one line of JSON on the standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# Functions from a request to its answers, one after the other.
_WORKS = {
    "check": "slm_vllm.tracking.clearml.check:try_all",
    "queue": "slm_vllm.tracking.clearml.queue:answer",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a process said before its end.

    Attributes:
        found: Its answers.
        timed_out: Whether it was killed.
        problem: The last it said beside, when it ended by itself.
    """

    found: list[Any]
    timed_out: bool = False
    problem: str = ""


def ask(work: str, request: Any, environment: Mapping[str, str], bound: float) -> Answers:
    """Has a request done within a bound.

    Args:
        work: "check" or "queue".
        request: Anything JSON can hold.
        environment: Of the process.
        bound: Seconds.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "slm_vllm.tracking.clearml.sdk_process", work],
            input=json.dumps(request).encode(),
            env=dict(environment),
            capture_output=True,
            timeout=bound,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return Answers(_whole_lines(error.stdout or b""), timed_out=True)
    errors = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return Answers(_whole_lines(done.stdout), problem=errors[-1][:300] if errors else "")


def _whole_lines(output: bytes) -> list[Any]:
    return [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]


def main() -> None:
    """See the module."""
    module, _, function = _WORKS[sys.argv[1]].partition(":")
    # What the SDK prints is no answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for found in getattr(import_module(module), function)(json.load(sys.stdin)):
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()

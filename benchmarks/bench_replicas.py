"""How many answers a second one driver can hand out and collect over Ray.

    python benchmarks/bench_replicas.py --replicas 1 2 4 8 --rows 20000

Each replica answers at once, so the figures are the driver's own ceiling: Ray's calls, the
bounded windows and the stream, on a cluster of this machine. The journal, prompts and scores, which
a run adds in the same process, are measured by bench_pipeline_ceiling.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Generator, Iterable
from pathlib import Path

from slm_vllm.config.compose import compose_config
from slm_vllm.config.engine import RayConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.ray_engine import RayEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.monitoring.device import Device
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

PROMPT = list(range(100))


class InstantEngine(BaseEngine):
    """Answers everything at once."""

    def __init__(self, settings: EngineSettings) -> None:
        """The settings are those of a real engine and not used."""

    def start(self) -> EngineInfo:
        return EngineInfo("instant", 1024)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for request in requests:
            yield Completion(request.request_id, "The answer is number 7.", "stop", 100, 7)

    def close(self) -> None:
        """Nothing to free."""


def measure(replicas: int, rows: int, rounds: int) -> dict[str, float]:
    """Rows a second, median of the rounds, and how long the cluster took to start."""
    hardware = compose_config(["hardware=ampere"]).hardware  # for its max_num_seqs
    settings = EngineSettings(
        Path("."), Device("cpu", "CPU"), hardware, GenerationConfig(), "float32", 1024
    )
    started = time.perf_counter()
    with RayEngine(settings, RayConfig(replicas=replicas), InstantEngine) as engine:
        engine.start()
        ready = time.perf_counter() - started
        rates = []
        for _ in range(rounds):
            requests = (GenerationRequest(f"{i:016x}", PROMPT) for i in range(rows))
            begun = time.perf_counter()
            answered = sum(1 for _ in engine.stream(requests))
            rates.append(rows / (time.perf_counter() - begun))
            assert answered == rows
    return {"rows_per_second": round(statistics.median(rates)), "start_seconds": round(ready, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {n: measure(n, arguments.rows, arguments.rounds) for n in arguments.replicas}
    print("| replicas | rows/s | start s |\n| --- | --- | --- |")
    for n, figures in found.items():
        print(f"| {n} | {figures['rows_per_second']:,} | {figures['start_seconds']} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Several engines behind one driver: what it can hand out and collect, and what they bring.

    python benchmarks/bench_replicas.py --replicas 1 2 4 8 --rows 20000
    python benchmarks/bench_replicas.py --over ray --replicas 1 2 4 8
    python benchmarks/bench_replicas.py --model demo --replicas 1 2 --questions 100

Without a model each replica answers at once, so the figures are the driver's own ceiling:
processes or Ray's calls, the bounded windows and the stream. The journal, prompts and scores,
which a run adds in the same process, are measured by bench_pipeline_ceiling.py.

With a model, random prompts of one length are asked in rounds, new ones in each, so that no prefix
is known; the numbers of engines take turns, `auto` is what a run of so many questions gets. On a
CPU the engines share the cores, on a GPU the GPU. Words such as `hardware.start=throughput` are
settings.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from instant_engine import InstantEngine

from slm_vllm.bench.workload import made_up_prompts
from slm_vllm.config.compose import compose_config
from slm_vllm.config.engine import RayConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.config.shorthand import model_override
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.local_replicas import LocalReplicas
from slm_vllm.engines.ray_engine import RayEngine
from slm_vllm.engines.registry import engine_factory
from slm_vllm.engines.replica_plan import ReplicaPlan
from slm_vllm.engines.replicated import ReplicatedEngine
from slm_vllm.engines.settings import EngineSettings, engine_settings, read_model_config
from slm_vllm.models.resolve import resolve_model
from slm_vllm.monitoring.device import Device, detect_device
from slm_vllm.types import GenerationRequest

PROMPT = list(range(100))

Number = int | Literal["auto"]


def number(word: str) -> Number:
    """Of engines, as `engine.replicas_per_gpu` has it."""
    return "auto" if word == "auto" else int(word)


def instant_engines(over: str, replicas: int) -> ReplicatedEngine:
    """Replicas that answer at once."""
    hardware = compose_config(["hardware=ampere"]).hardware  # for its max_num_seqs
    settings = EngineSettings(
        Path("."), Device("cpu", "CPU"), hardware, GenerationConfig(), "float32", 1024
    )
    if over == "ray":
        return RayEngine(settings, RayConfig(replicas=replicas), InstantEngine)
    plan = ReplicaPlan((), replicas, "a benchmark")
    return LocalReplicas(settings, make_engine=InstantEngine, plan=plan)


def ceiling(over: str, replicas: int, rows: int, rounds: int) -> dict[str, float]:
    """Rows a second, median of the rounds, and how long the replicas took to start."""
    started = time.perf_counter()
    with instant_engines(over, replicas) as engine:
        engine.start()
        ready = time.perf_counter() - started
        rates, cpu = [], []
        for _ in range(rounds):
            requests = (GenerationRequest(f"{i:016x}", PROMPT) for i in range(rows))
            begun, used = time.perf_counter(), time.process_time()
            answered = sum(1 for _ in engine.stream(requests))
            rates.append(rows / (time.perf_counter() - begun))
            cpu.append((time.process_time() - used) / rows)
            assert answered == rows
    return {
        "rows_per_second": round(statistics.median(rates)),
        "driver_us_per_row": round(1e6 * statistics.median(cpu), 1),
        "start_seconds": round(ready, 1),
    }


def real_engines(arguments: argparse.Namespace) -> dict[Number, dict[str, Any]]:
    """Questions a second of real engines, the numbers of them in turn."""
    found: dict[Number, dict[str, Any]] = {}
    seed = 0
    for _ in range(arguments.loads):
        for replicas in arguments.replicas:
            row = found.setdefault(replicas, {"rates": [], "start_seconds": []})
            with ExitStack() as stack:
                engine, vocabulary = real_engine(arguments, replicas)
                stack.enter_context(engine)
                begun = time.perf_counter()
                details = engine.start().details
                row["start_seconds"].append(round(time.perf_counter() - begun, 1))
                row["choices"] = dict(details["choices"])
                warm_up = 8 * int(details.get("replicas", 1))
                list(engine.stream(asked(arguments, vocabulary, warm_up, seed := seed + 1)))
                for _ in range(arguments.rounds):
                    requests = asked(arguments, vocabulary, arguments.questions, seed := seed + 1)
                    begun = time.perf_counter()
                    answers = list(engine.stream(requests))
                    seconds = time.perf_counter() - begun
                    assert not any(answer.error for answer in answers)
                    row["rates"].append(round(len(answers) / seconds, 2))
                    print(f"{replicas} engines: {row['rates'][-1]}", file=sys.stderr, flush=True)
    for row in found.values():
        row["questions_per_second"] = round(statistics.median(row["rates"]), 2)
    return found


def real_engine(arguments: argparse.Namespace, replicas: Number) -> tuple[BaseEngine, int]:
    """An engine as a run would make it, and the size of its vocabulary."""
    words = [
        *model_override(arguments.model),
        f"engine.replicas_per_gpu={replicas}",
        f"generation.max_new_tokens={arguments.output_len}",
        *arguments.words,
    ]
    config = compose_config(words)
    folder = Path(arguments.model)
    if not (folder / "config.json").exists():
        folder = resolve_model(config.model.path, None, cache_dir=Path(config.cache_dir)).path
    settings = engine_settings(
        config, folder, detect_device(), arguments.input_len, arguments.questions
    )
    vocabulary = int(read_model_config(folder)["vocab_size"])
    return engine_factory(config.engine)(settings), vocabulary


def asked(
    arguments: argparse.Namespace, vocabulary: int, n: int, seed: int
) -> Iterator[GenerationRequest]:
    """Prompts that no engine has seen."""
    prompts = made_up_prompts(n, arguments.input_len, vocabulary, seed)
    return (GenerationRequest(f"{seed}-{i}", prompt) for i, prompt in enumerate(prompts))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicas", type=number, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--over", choices=["processes", "ray"], default="processes")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="Real engines of this one: a name or a folder.")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--loads", type=int, default=2, help="Of each number of engines.")
    parser.add_argument("--input-len", type=int, default=64)
    parser.add_argument("--output-len", type=int, default=32)
    parser.add_argument("--json", type=Path)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores", flush=True)
    found: dict[Number, dict[str, Any]]
    if arguments.model:
        found = real_engines(arguments)
        print("| engines | questions/s | all rounds | start s |\n| --- | --- | --- | --- |")
        for n, row in found.items():
            n = row["choices"]["replicas"] if n == "auto" else n
            rates = ", ".join(map(str, row["rates"]))
            started = ", ".join(map(str, row["start_seconds"]))
            print(f"| {n} | {row['questions_per_second']} | {rates} | {started} |")
    else:
        rows, rounds = arguments.rows, arguments.rounds
        found = {n: dict(ceiling(arguments.over, n, rows, rounds)) for n in arguments.replicas}
        print("| replicas | rows/s | driver us/row | start s |\n| --- | --- | --- | --- |")
        for n, row in found.items():
            figures = f"{row['rows_per_second']:,} | {row['driver_us_per_row']}"
            print(f"| {n} | {figures} | {row['start_seconds']} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

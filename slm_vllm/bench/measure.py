"""Measures one model on one engine; runs in a process of its own, so that memory is given back.

python -m slm_vllm.bench.measure PLAN.json RESULT.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm_vllm.bench.model_folder import find_model
from slm_vllm.bench.plan import Plan
from slm_vllm.bench.runners import RUNNERS, Pass, Runner
from slm_vllm.bench.statistics import percentiles, spread
from slm_vllm.bench.workload import dataset_prompts, made_up_prompts
from slm_vllm.config.compose import compose_config
from slm_vllm.config.engine import EngineConfig
from slm_vllm.config.schema import Config
from slm_vllm.engines.settings import (
    EngineSettings,
    context_limit,
    engine_environment,
    engine_settings,
    read_model_config,
)
from slm_vllm.errors import SlmVllmError
from slm_vllm.models.resolve import require_model_packages
from slm_vllm.models.tokenizer import load_tokenizer
from slm_vllm.monitoring.device import detect_device
from slm_vllm.monitoring.energy import gpu_clock, gpu_joules
from slm_vllm.monitoring.memory import MemorySampler
from slm_vllm.monitoring.other_work import OtherWork

WARM_UP = 32  # questions


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known before the engine starts.

    Attributes:
        settings: The engine's settings.
        engine: The `engine` section.
        prompts: Token ids of every prompt.
    """

    settings: EngineSettings
    engine: EngineConfig
    prompts: list[list[int]]


def prepare(plan: Plan) -> Prepared:
    """Finds the model, makes the prompts and sizes the engine for them.

    Raises:
        SlmVllmError: What the user has to fix.
    """
    config = compose_config([*plan.words, *_plan_words(plan)], plan.config_dir)
    device = detect_device()
    section = config.model
    require_model_packages(config.engine.name, device.profile)
    cache = Path(config.cache_dir)
    folder = find_model(section.path, section.revision, dummy=plan.dummy, cache_dir=cache)
    tokenizer = load_tokenizer(folder, trust_remote_code=section.trust_remote_code)
    prompts = _prompts(plan, config, folder, tokenizer)
    settings = engine_settings(config, folder, device, max(map(len, prompts)))
    if plan.input_len is not None:
        settings = replace(settings, ignore_eos=True, stop=())
    return Prepared(settings, config.engine, prompts)


def _plan_words(plan: Plan) -> list[str]:
    words = []
    if plan.dummy:
        words.append("hardware.engine_args.load_format=dummy")
    if plan.output_len is not None:
        words.append(f"generation.max_new_tokens={plan.output_len}")
    return words


def _prompts(plan: Plan, config: Config, folder: Path, tokenizer: Any) -> list[list[int]]:
    model = read_model_config(folder)
    budget = context_limit(config, model) - config.generation.max_new_tokens
    if plan.input_len is None:
        return dataset_prompts(config, tokenizer, plan.questions, budget)
    if plan.input_len > budget:
        raise SlmVllmError(
            f"--input-len {plan.input_len}: {plan.model} takes prompts of up to {budget} tokens "
            f"beside {config.generation.max_new_tokens} new ones"
        )
    # vLLM refuses ids that either the model or the tokenizer lacks.
    vocabulary = min(int(model.get("vocab_size") or len(tokenizer)), len(tokenizer))
    return made_up_prompts(plan.questions, plan.input_len, vocabulary, config.experiment.seed)


def measure(runner: Runner, prepared: Prepared, plan: Plan, clock: Phases) -> dict[str, Any]:
    """Loads, warms up and repeats.

    Returns:
        One row of the results.
    """
    prompts = prepared.prompts
    with MemorySampler(interval=0.2) as memory:
        details = runner.load()
        clock.end("load")
        runner.answer(prompts[:1])
        clock.end("first answer")
        runner.answer(prompts[:WARM_UP])
        joules = gpu_joules()
        work = OtherWork()
        clocks = [gpu_clock()]
        passes = []
        for _ in range(plan.repeats):
            runner.forget()
            passes.append(runner.answer(prompts))
        clocks.append(gpu_clock())
        other = work.cores_busy()
        later = gpu_joules()
        used = None if joules is None or later is None else later - joules
        memory.sample()
        used_memory = memory.report()
    runner.close()
    tokens = details.get("kv_cache_tokens")
    per_token = prepared.settings.kv_bytes_per_token
    return {
        "device": prepared.settings.device.name,
        "profile": prepared.settings.hardware.name,
        "dtype": prepared.settings.dtype,
        "max_model_len": prepared.settings.max_model_len,
        "questions": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        **rates(passes, prompts),
        "startup_seconds": clock.phases | {"total": clock.total},
        "kv_cache_tokens": tokens,
        "kv_cache_bytes": tokens * per_token if tokens and per_token else None,
        "other_cores_busy": other,
        "gpu_clock_mhz": [clock for clock in clocks if clock is not None],
        "peak_rss_mib": used_memory["peak_rss"],
        "peak_gpu_mib": used_memory["peak_gpu"],
        "joules_per_1000_questions": (
            None if used is None else round(used / (len(prompts) * plan.repeats) * 1000, 1)
        ),
        "engine_details": {key: value for key, value in details.items() if key != "left_out"},
    }


def rates(passes: Sequence[Pass], prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Medians and spread over the repeats; latencies over all answers of all repeats."""
    n_prompt = sum(map(len, prompts))
    latencies = [latency for one in passes for latency in one.latencies]
    firsts = [one.first_answer for one in passes if one.first_answer is not None]
    return {
        "seconds": spread([one.seconds for one in passes]),
        "questions_per_second": spread([len(prompts) / one.seconds for one in passes]),
        "prompt_tokens_per_second": spread([n_prompt / one.seconds for one in passes]),
        "new_tokens_per_second": spread([one.new_tokens / one.seconds for one in passes]),
        "first_answer_seconds": spread(firsts) if firsts else None,
        "latency_seconds": percentiles(latencies) if latencies else None,
    }


class Phases:
    """Seconds of each phase since the process was asked for."""

    def __init__(self, asked_at: float, now: Callable[[], float] = time.time) -> None:
        self._now, self._asked, self._last = now, asked_at, asked_at
        self.phases: dict[str, float] = {}

    def end(self, name: str) -> None:
        """Ends the phase that began where the one before ended."""
        now = self._now()
        self.phases[name] = round(now - self._last, 3)
        self._last = now

    @property
    def total(self) -> float:
        """Seconds up to the end of the last phase."""
        return round(self._last - self._asked, 3)


def main(plan_path: str, result_path: str) -> int:
    """Measures as the plan says and writes the row, or the error that ended it."""
    content = json.loads(Path(plan_path).read_text())
    plan, clock = Plan.from_json(content["plan"]), Phases(content["asked_at"])
    clock.end("process")
    try:
        prepared = prepare(plan)
        clock.end("prepare")
        os.environ.update(engine_environment(prepared.settings))
        runner = RUNNERS[plan.engine](prepared.settings, prepared.engine)
        runner.import_ahead()
        clock.end("import")
        row = measure(runner, prepared, plan, clock)
    except SlmVllmError as error:
        row = {"error": str(error)}
    Path(result_path).write_text(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

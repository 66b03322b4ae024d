from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.bench import measure as measuring
from slm_vllm.bench import model_folder, throughput
from slm_vllm.bench.measure import Phases, Prepared, measure, rates
from slm_vllm.bench.plan import Plan, parse_baselines
from slm_vllm.bench.rounds import verdicts
from slm_vllm.bench.runners import Pass, Runner, _length
from slm_vllm.bench.statistics import percentiles, spread
from slm_vllm.bench.table import merge, read_results, throughput_table
from slm_vllm.bench.workload import dataset_prompts, made_up_prompts
from slm_vllm.cli.bench import command
from slm_vllm.config.compose import compose_config
from slm_vllm.engines.settings import engine_settings
from slm_vllm.errors import ConfigError, DataError, SlmVllmError
from slm_vllm.monitoring.device import Device

REPOSITORY = Path(__file__).parents[2]
SHAPES = REPOSITORY / "benchmarks" / "shapes"
PLAN = Plan("demo", ("model=demo",), questions=4, repeats=2, input_len=5, output_len=3)


def parameters(shape: dict[str, Any]) -> int:
    """Counted from the layers of the architecture; the embedding is tied to the head."""
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    width, kv = shape["head_dim"], shape["num_key_value_heads"]
    attention = hidden * width * heads * 2 + hidden * width * kv * 2
    if shape["model_type"] == "qwen3":
        attention += 2 * width  # the norms of queries and keys
    layer = attention + 3 * hidden * shape["intermediate_size"] + 2 * hidden
    return shape["vocab_size"] * hidden + shape["num_hidden_layers"] * layer + hidden


@pytest.mark.parametrize(
    ("name", "millions"),  # as the model cards say
    [
        ("smollm2-135m", 134.5),
        ("smollm2-360m", 361.8),
        ("smollm2-1.7b", 1711),
        ("qwen3-0.6b", 596),
        ("qwen3-1.7b", 1720),
        ("qwen3-4b", 4022),
    ],
)
def test_shapes_have_the_size_of_their_models(name: str, millions: float) -> None:
    shape = json.loads((SHAPES / name / "config.json").read_text())
    assert parameters(shape) / 1e6 == pytest.approx(millions, rel=2e-3)


def test_plan_travels() -> None:
    assert Plan.from_json(json.loads(json.dumps(asdict(PLAN)))) == PLAN


def test_baselines() -> None:
    assert parse_baselines(None) == ("slm-vllm",)
    assert parse_baselines("transformers, vllm,vllm") == ("slm-vllm", "transformers", "vllm")
    with pytest.raises(ConfigError, match="--baseline tgi.*vllm, transformers"):
        parse_baselines("vllm,tgi")


@given(st.integers(1, 20), st.integers(1, 60), st.integers(8, 50_000), st.integers(0, 99))
def test_made_up_prompts(n: int, length: int, vocabulary: int, seed: int) -> None:
    prompts = made_up_prompts(n, length, vocabulary, seed)
    assert [len(prompt) for prompt in prompts] == [length] * n
    assert all(vocabulary // 4 <= token < vocabulary for prompt in prompts for token in prompt)
    assert prompts == made_up_prompts(n, length, vocabulary, seed)


def test_made_up_prompts_share_no_prefix() -> None:
    prompts = made_up_prompts(200, 16, 49152, 42)
    assert len({tuple(prompt[:2]) for prompt in prompts}) == 200


class WordTokenizer:
    chat_template = None
    all_special_tokens: list[str] = []

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


def test_prompts_of_a_dataset(tmp_path: Path) -> None:
    file = tmp_path / "qa.jsonl"
    rows = [{"question_id": str(i), "question": "why " * (i + 1), "answer": "x"} for i in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["dataset=custom", "dataset.name=qa", f"dataset.path={file}", "prompt=plain"]
    config = compose_config([*words, "prompt.system=null", "prompt.question_template='{question}'"])
    prompts = dataset_prompts(config, WordTokenizer(), 5, 100)
    lengths = [len(prompt) for prompt in prompts]
    assert len(prompts) == 5 and lengths == list(range(lengths[0], lengths[0] + 5))
    with pytest.raises(DataError, match="no question fits"):
        dataset_prompts(config, WordTokenizer(), 5, 0)
    with pytest.raises(ConfigError, match="without searching.*oracle"):
        dataset_prompts(
            compose_config([*words, "experiment_mode=retriever"]), WordTokenizer(), 5, 100
        )


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=30))
def test_statistics(values: list[float]) -> None:
    found = spread(values)
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    assert found["median"] == pytest.approx(median, abs=1e-4)
    assert (found["min"], found["max"]) == (round(ordered[0], 4), round(ordered[-1], 4))
    marks = percentiles(values)
    assert marks["p50"] <= marks["p90"] <= marks["p99"] <= found["max"] + 1e-4


def test_percentiles_by_hand() -> None:
    assert percentiles(list(range(1, 102))) == {"p50": 51.0, "p90": 91.0, "p99": 100.0}


def test_rates_by_hand() -> None:
    passes = [Pass(2.0, 60, 0.5, (1.0, 2.0)), Pass(4.0, 60, 1.5, (3.0, 4.0))]
    found = rates(passes, [[1] * 10, [1] * 30])
    assert found["questions_per_second"]["all"] == [1.0, 0.5]
    assert found["prompt_tokens_per_second"]["median"] == 15.0
    assert found["new_tokens_per_second"]["all"] == [30.0, 15.0]
    assert found["first_answer_seconds"]["median"] == 1.0
    assert found["latency_seconds"]["p50"] == 2.5
    unknown = rates([Pass(2.0, 60)], [[1]])
    assert unknown["first_answer_seconds"] is None and unknown["latency_seconds"] is None


def test_phases() -> None:
    moments = iter([12.0, 15.5, 16.0])
    clock = Phases(10.0, now=lambda: next(moments))
    for name in ("process", "import", "load"):
        clock.end(name)
    assert clock.phases == {"process": 2.0, "import": 3.5, "load": 0.5}
    assert clock.total == 6.0


class FakeRunner(Runner):
    def __init__(self, ready: Prepared) -> None:
        super().__init__(ready.settings, ready.engine)
        self.did: list[str] = []

    def import_ahead(self) -> None:
        self.did.append("import")

    def load(self) -> dict[str, Any]:
        self.did.append("load")
        return {"vllm": "0", "kv_cache_tokens": 1000}

    def answer(self, prompts: Sequence[list[int]]) -> Pass:
        self.did.append(f"answer {len(prompts)}")
        return Pass(2.0, 3 * len(prompts), 0.5, (1.0,) * len(prompts))

    def forget(self) -> None:
        self.did.append("forget")

    def close(self) -> None:
        self.did.append("close")


def prepared(n: int) -> Prepared:
    config = compose_config(["hardware=cpu"])
    folder = SHAPES / "smollm2-135m"
    settings = engine_settings(config, folder, Device("cpu", "EPYC"), 5)
    return Prepared(settings, config.engine, [[7] * 5] * n)


def test_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter([100.0, 160.0])
    monkeypatch.setattr(measuring, "gpu_joules", lambda: next(counter))
    ready = prepared(40)
    runner = FakeRunner(ready)
    row = measure(runner, ready, PLAN, Phases(0.0))
    repeat = ["forget", "answer 40"]
    assert runner.did == ["load", "answer 1", "answer 32", *repeat, *repeat, "close"]
    assert row["questions_per_second"]["median"] == 20.0
    assert row["kv_cache_bytes"] == 1000 * 46080  # fp32
    assert row["joules_per_1000_questions"] == 750.0  # 60 J for 80 questions
    assert list(row["startup_seconds"]) == ["load", "first answer", "total"]
    assert row["peak_rss_mib"] > 1
    assert row["other_cores_busy"] >= 0 and row["gpu_clock_mhz"] == []


def test_prepare_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (demo / name).write_text("{}")
    monkeypatch.setattr(model_folder, "prepare_demo_model", lambda cache: demo)
    monkeypatch.setattr(measuring, "load_tokenizer", lambda folder, **_: range(900))
    shape = SHAPES / "qwen3-0.6b"
    words = ("model=custom", "model.name=q", f"model.path='{shape}'", f"cache_dir='{tmp_path}'")
    plan = Plan("q", (*words, "hardware=cpu"), None, "slm-vllm", True, 6, 1, 100, 20)
    ready = measuring.prepare(plan)
    assert ready.settings.hardware.engine_args["load_format"] == "dummy"
    assert ready.settings.ignore_eos and ready.settings.max_model_len == 128
    assert ready.settings.generation.max_new_tokens == 20
    # No id that the tokenizer lacks, whatever the model's vocabulary.
    assert np.shape(ready.prompts) == (6, 100) and max(map(max, ready.prompts)) < 900
    made = ready.settings.model_path
    assert made.parent == tmp_path / "models" and (made / "tokenizer.json").is_file()
    assert measuring.prepare(plan).settings.model_path == made
    with pytest.raises(SlmVllmError, match="--input-len 50000: q takes prompts of up to 40940"):
        measuring.prepare(Plan("q", words, None, "slm-vllm", True, 6, 1, 50_000, 20))


def test_answers_are_counted_to_their_end() -> None:
    assert _length([5, 6, 2, 0, 0], 2) == 3
    assert _length([5, 6, 9], [2, 9]) == 3
    assert _length([5, 6], None) == 2


@pytest.mark.slow
def test_a_failure_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model does not exist: the process itself says so, and the next one is measured."""
    said: list[str] = []
    words = ("model=custom", "model.name=gone", "model.path=./gone")
    results = throughput.measure_all([Plan("gone", words), Plan("lost", words)], said.append)
    assert ["does not exist" in row["error"] for row in results["rows"]] == [True, True]
    assert [row["model"] for row in results["rows"]] == ["gone", "lost"]
    assert "gone on slm-vllm ..." in said
    assert results["machine"]["cores"] >= 1 and results["versions"]["python"]
    table = throughput_table(merge([results]))
    assert table.startswith("gone on slm-vllm failed: ")  # no head over no rows


def row_of(*rates_of_repeats: float, busy: float = 0.0, start: float = 5.0) -> dict[str, Any]:
    return {
        **rates([Pass(100 / rate, 3200, 0.1) for rate in rates_of_repeats], [[1]] * 100),
        "peak_rss_mib": 10.0 * rates_of_repeats[0],
        "peak_gpu_mib": None,
        "other_cores_busy": busy,
        "joules_per_1000_questions": rates_of_repeats[0],
        "startup_seconds": {"load": 1.0, "total": start},
    }


def test_engines_take_turns_and_all_repeats_count(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def one(plan: Plan) -> dict[str, Any]:
        order.append(plan.engine)
        return row_of(10.0 * len(order), 20.0, start=10.0 - len(order))

    monkeypatch.setattr(throughput, "measure_one", one)
    plans = [Plan("m", (), engine=engine) for engine in ("slm-vllm", "vllm")]
    rows = throughput.measure_all(plans, lambda text: None, rounds=3)["rows"]
    assert order == ["slm-vllm", "vllm", "vllm", "slm-vllm", "slm-vllm", "vllm"]
    ours = rows[0]
    assert sorted(ours["questions_per_second"]["all"]) == [10, 20, 20, 20, 40, 50]
    assert ours["questions_per_second"]["median"] == 20
    assert (ours["peak_rss_mib"], ours["peak_gpu_mib"]) == (500.0, None)
    assert ours["joules_per_1000_questions"] == pytest.approx((10 + 40 + 50) / 3, abs=0.05)
    assert (ours["startup_seconds"]["total"], ours["startup_totals"]) == (5.0, [9.0, 6.0, 5.0])


def test_a_round_that_fails_is_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([row_of(1.0), {"error": "no memory"}])
    monkeypatch.setattr(throughput, "measure_one", lambda plan: next(answers))
    rows = throughput.measure_all([PLAN], lambda text: None, rounds=2)["rows"]
    assert rows == [{"model": PLAN.model, "engine": PLAN.engine, "error": "no memory"}]
    assert verdicts(rows, 2) == []


@pytest.mark.parametrize(
    ("ours", "busy", "said"),
    [
        ((19.0, 20.0, 21.0), 0.1, "m: slm-vllm against vllm: 2.00x [1.73, 2.33]"),
        ((10.5, 11.5, 12.0), 0.1, "1.15x by medians, but repeats of the two overlap"),
        ((19.0, 20.0, 21.0), 0.3, "not compared, for other work took 0.3 of 2 cores"),
    ],
)
def test_no_engine_is_called_faster_by_chance(
    ours: tuple[float, ...], busy: float, said: str
) -> None:
    rows = [
        {"model": "m", "engine": "slm-vllm", **row_of(*ours)},
        {"model": "other", "engine": "slm-vllm", **row_of(1.0)},
        {"model": "m", "engine": "vllm", **row_of(9.0, 10.0, 11.0, busy=busy)},
    ]
    (found,) = verdicts(rows, 2)
    assert said in found


def test_a_process_that_dies_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = "import os; os.write(2, b'the last word\\n'); os.kill(os.getpid(), 9)"
    start = subprocess.Popen
    monkeypatch.setattr(
        throughput.subprocess,
        "Popen",
        lambda command, **options: start([sys.executable, "-c", killed], **options),
    )
    error = throughput.measure_one(PLAN)["error"]
    assert "ended with -9" in error and "the last word" in error


def results_file(path: Path, machine: str, rate: float, *models: str) -> Path:
    row = {
        "engine": "slm-vllm",
        "dtype": "bfloat16",
        "questions": 100,
        "prompt_tokens": 4200,
        "kv_cache_tokens": 23296,
        "peak_rss_mib": 1000.4,
        "peak_gpu_mib": None,
        "joules_per_1000_questions": None,
        "startup_seconds": {"load": 2.0, "total": 7.25},
        **rates([Pass(100 / rate, 3200)], [[1]] * 100),
    }
    rows = [{"model": model, **row} for model in models]
    path.write_text(json.dumps({"machine": {"name": machine}, "versions": {}, "rows": rows}))
    return path


def test_how_many_engines_is_said(tmp_path: Path) -> None:
    content = read_results(results_file(tmp_path / "a.json", "H200", 50.0, "small"))
    content["rows"][0]["engine_details"] = {"replicas": 4}
    assert "  slm-vllm x 4  " in throughput_table(merge([content]))


def test_only_engines_of_this_machine_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is measured."""
    monkeypatch.setattr(throughput, "measure_one", lambda plan: pytest.fail("it was measured"))
    words = ["engine.name=openai", "engine.base_url=[http://localhost:9/v1]"]
    done = CliRunner().invoke(command, ["throughput", "--models", "demo", *words])
    assert isinstance(done.exception, ConfigError)
    assert "engine.name=vllm, not openai" in str(done.exception)


def test_machines_side_by_side(tmp_path: Path) -> None:
    first = results_file(tmp_path / "a.json", "V100", 50.0, "small", "large")
    second = results_file(tmp_path / "b.json", "H200", 400.0, "small")
    done = CliRunner().invoke(command, ["show", str(first), str(second)])
    lines = [line.split() for line in done.output.splitlines()]
    assert lines[0][:3] == ["machine", "model", "engine"]
    shown = [(line[0], line[1], line[7]) for line in lines[2:]]
    assert lines[2][4:7] == ["100", "x", "42+32"]
    assert shown == [("V100", "small", "50"), ("H200", "small", "400"), ("V100", "large", "50")]
    alone = CliRunner().invoke(command, ["show", str(first)]).output
    assert alone.split()[0] == "model" and "23,296" in alone
    merged = json.loads(CliRunner().invoke(command, ["show", "--json", str(second)]).output)
    assert merged["rows"][0]["machine"] == "H200"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"rows": []}'])
def test_files_that_hold_no_results(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"x\.json: "):
        read_results(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "qwen_0.6", "--questions", "1"], "--model qwen_0.6: .*qwen_0.6b"),
        (["--models", " , "], "--models is empty"),
        (["--models", "demo", "--baseline", "tgi"], "--baseline tgi"),
        (["--models", "demo", "--dataset", "demo", "--output-len", "3"], "exclude one another"),
        (["--models", "demo", "generation.max_new_token=3"], "max_new_tokens"),
    ],
)
def test_mistakes_end_before_anything_is_measured(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "measure_all", None)
    done = CliRunner().invoke(command, ["throughput", *words])
    assert isinstance(done.exception, ConfigError)
    assert re.search(message, str(done.exception))


def test_plans_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Plan] = []
    asked_rounds: list[int] = []

    def fake(plans: list[Plan], say: Any, *, rounds: int) -> dict[str, Any]:
        asked.extend(plans)
        asked_rounds.append(rounds)
        return {"machine": {"name": "m", "cores": 1}, "rows": []}

    monkeypatch.setattr(throughput, "measure_all", fake)
    words = ["--models", "demo,qwen_4b,demo", "--baseline", "vllm", "--load-format", "dummy"]
    done = CliRunner().invoke(command, ["throughput", *words, "--json", "experiment.seed=3"])
    assert json.loads(done.stdout)["rows"] == []
    assert [(plan.model, plan.engine) for plan in asked] == [
        ("demo", "slm-vllm"),
        ("demo", "vllm"),
        ("qwen_4b", "slm-vllm"),
        ("qwen_4b", "vllm"),
    ]
    assert all(plan.dummy and "experiment.seed=3" in plan.words for plan in asked)
    assert (asked[0].input_len, asked[0].output_len) == (128, 32)
    CliRunner().invoke(command, ["throughput", "--models", "demo", "--dataset", "demo"])
    assert (asked[-1].input_len, asked[-1].output_len) == (None, None)
    assert asked_rounds == [2, 1]

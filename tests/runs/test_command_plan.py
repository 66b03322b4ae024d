"""What `eval --plan` says, and that it does nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from slm_vllm.amounts import GIB
from slm_vllm.cli.main import cli
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, EngineDiedError
from slm_vllm.monitoring.device import Device
from slm_vllm.runs import command_plan
from slm_vllm.runs.command_plan import CommandPlan, plan_command
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from support.fake_engine import FakeEngine
from support.qa_files import write_rows

MakeConfig = Callable[..., Config]
UNKNOWN = "unknown: no earlier run of this model on this device"


def run(config: Config, engine: FakeEngine) -> Path:
    evaluate([config], RunOptions(make_engine=engine.factory(), own_process=True))
    return folder(config)


def folder(config: Config) -> Path:
    return config.experiment.folder


def changed(path: Path, change: Callable[[Any], object]) -> None:
    """Changes a JSON or YAML file of an earlier run."""
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def with_rate(run_folder: Path, rate: float) -> Path:
    changed(
        run_folder / "results.json",
        lambda results: results["throughput"].update(questions_per_second=rate),
    )
    return run_folder


def files(root: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*")}


def test_rows_and_tokens_are_those_of_the_file(
    make_config: MakeConfig, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    words = ("prompt=plain", "prompt.system=null", "prompt.few_shot=[]")
    closed = make_config(*words, "generation.max_new_tokens=7")
    oracle = make_config(*words, "experiment_mode=oracle")
    write_rows(tmp_path / "qa.jsonl", [*rows, {"question_id": "bad", "question": ""}])
    found = plan_command([closed, oracle]).runs
    # "Question: ", a line, "Answer:"; with a context "[1]", a line, the context, an empty line.
    asked = sum(len(str(row["question"])) + len("Question: \nAnswer:") for row in rows)
    shown = 10 * len("[1]\ncontext 0\n\n")
    assert [(one.rows, one.rejected) for one in found] == [(10, 1), (10, 1)]
    assert [one.most_prompt_tokens for one in found] == [asked, asked + shown]
    assert [one.prompt_tokens for one in found] == [asked // 4, (asked + shown) // 4]
    assert found[0].new_tokens == 70
    assert found[0].folder == str(folder(closed))


def test_a_search_adds_its_passages(make_config: MakeConfig) -> None:
    closed, searching = plan_command(
        [make_config(), make_config("experiment_mode=retriever", "retriever.top_k=2")]
    ).runs
    # Two times 100 words and a title; the templates' own text is the same for every row.
    added, rest = divmod(searching.most_prompt_tokens - closed.most_prompt_tokens, 10)
    assert rest == 0
    assert 2 * 290 < added < 2 * 290 + 100


def test_what_is_asked_before_a_search_is_counted(make_config: MakeConfig) -> None:
    words = ("experiment_mode=retriever", "retriever.reranker.candidates=20")
    reranked = make_config(*words, "retriever=reranked", "experiment.max_samples=3")
    plain, hyde = make_config(), make_config("experiment_mode=retriever", "retriever=hyde")
    found = plan_command([plain, reranked, hyde])
    assert [run.auxiliary_prompts for run in found.runs] == [0, 60, 10]
    assert found.runs[1].auxiliary_tokens > 60 * 145 and found.runs[2].auxiliary_tokens > 960
    assert str(found).count("Before the searches of") == 2
    closed = make_config("retriever=reranked")
    assert plan_command([closed]).runs[0].auxiliary_prompts == 0


def test_what_the_judge_is_asked_is_counted(make_config: MakeConfig) -> None:
    config = make_config("judge.model=demo", "judge.votes=3", "experiment.max_samples=4")
    found = plan_command([config, make_config()])
    assert [run.judge_prompts for run in found.runs] == [12, 0]
    assert str(found).count("12 prompts for the judge") == str(found).count("for the judge") == 1


def test_the_limit_of_rows_holds(make_config: MakeConfig) -> None:
    assert plan_command([make_config("experiment.max_samples=3")]).runs[0].rows == 3


def test_time_is_learned_from_finished_runs_of_the_same_model_and_device(
    make_config: MakeConfig,
) -> None:
    first = with_rate(run(make_config("experiment.name=first"), FakeEngine()), 2.0)
    root = first.parent
    for name, rate in (("second", 5.0), ("model", 50.0), ("device", 60.0), ("open", 70.0)):
        shutil.copytree(first, root / name)
        with_rate(root / name, rate)
    changed(root / "model/config.yaml", lambda config: config["model"].update(path="other"))
    changed(root / "device/manifest.json", lambda manifest: manifest["device"].update(name="x"))
    changed(root / "open/state.json", lambda state: state.update(phase="interrupted"))
    (root / "damaged").mkdir()
    (root / "damaged/results.json").write_text("{")
    found = plan_command([make_config("experiment.name=next")])
    assert found.runs[0].seconds == (2.0, 5.0)
    assert found.runs[0].learned_from == 2
    assert "0:02 to 0:05" in str(found)
    assert UNKNOWN not in str(found)


def test_energy_is_learned_from_runs_whose_gpu_counts_it(make_config: MakeConfig) -> None:
    first = with_rate(run(make_config("experiment.name=first"), FakeEngine()), 2.0)
    shutil.copytree(first, first.parent / "second")
    next_one = make_config("experiment.name=next")
    assert plan_command([next_one]).to_json()["joules"] is None
    for name, joules in (("first", 36_000.0), ("second", 72_000.0)):
        changed(
            first.parent / name / "results.json",
            lambda results, joules=joules: results["throughput"].update(
                joules_per_1000_questions=joules
            ),
        )
    found = plan_command([next_one])
    assert found.to_json()["joules"] == (360.0, 720.0)  # of ten questions
    assert "Energy: 0.1 to 0.2 Wh of the GPUs while they answer" in str(found)
    oracle = make_config("experiment.name=gold", "model.path=other")
    assert plan_command([next_one, oracle]).joules is None


def test_runs_of_the_same_mode_are_worth_more(make_config: MakeConfig) -> None:
    with_rate(run(make_config("experiment.name=closed"), FakeEngine()), 2.0)
    oracle = make_config("experiment.name=next", "experiment_mode=oracle")
    assert plan_command([oracle]).runs[0].seconds == (5.0, 5.0)
    earlier = make_config("experiment.name=gold", "experiment_mode=oracle")
    with_rate(run(earlier, FakeEngine()), 1.0)
    assert plan_command([oracle]).runs[0].seconds == (10.0, 10.0)


def test_without_an_earlier_run_time_is_unknown(make_config: MakeConfig) -> None:
    found = plan_command([make_config()])
    assert found.runs[0].seconds is None
    assert f"Time: {UNKNOWN}" in str(found)
    assert "Energy: unknown" in str(found)


def test_answers_of_an_interrupted_run_are_counted_and_left_alone(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config("generation.max_new_tokens=7")
    with pytest.raises(EngineDiedError):
        run(config, FakeEngine(dies_after=4, fails=frozenset({1})))
    journal = folder(config) / "predictions.jsonl"
    with journal.open("a") as file:
        file.write('{"key":"torn')
    answers = len(journal.read_text().splitlines()) - 1
    before = files(tmp_path)
    found = plan_command([config]).runs[0]
    again = plan_command([config], retry_errors=True).runs[0]
    assert files(tmp_path) == before
    assert (found.resumed, found.new_tokens) == (answers, 7 * (10 - answers))
    assert again.resumed < found.resumed
    assert plan_command([config], overwrite=True).runs[0].resumed == 0


def test_a_run_of_another_configuration_is_refused_as_it_would_be(
    make_config: MakeConfig,
) -> None:
    run(make_config("experiment.name=one"), FakeEngine())
    config = make_config("experiment.name=one", "generation.max_new_tokens=7")
    found = plan_command([config])
    assert "generation.max_new_tokens is 7 and was 32" in found.runs[0].refused
    assert found.runs[0].refused in str(found)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("cuda", "Some GPU", (8, 0), 10 * GIB)
    monkeypatch.setattr(command_plan, "detect_device", lambda: device)


def of_size(model: Path, target: Path, size: int, **config: object) -> str:
    """A copy of a model whose weights are a hole of that many bytes."""
    shutil.copytree(model, target)
    with (target / "model.safetensors").open("r+b") as file:
        file.truncate(size)
    changed(target / "config.json", lambda content: content.update(config))
    return f"model.path={target}"


def planned(make_config: MakeConfig, *words: str) -> CommandPlan:
    sized = ("hardware.engine_args.gpu_memory_utilization=0.5", "model.max_model_len=256")
    return plan_command([make_config("hardware=ampere", "model.dtype=float16", *sized, *words)])


@pytest.mark.usefixtures("gpu")
def test_weights_and_cache_must_fit_the_share_of_the_device(
    make_config: MakeConfig, tiny_model: Path, tmp_path: Path
) -> None:
    # One token: 2 x 65,536 layers x 2 heads x 8 x 2 bytes = 4 MiB; a prompt of 256: 1 GiB.
    deep = {"num_hidden_layers": 1 << 16}
    three = planned(make_config, of_size(tiny_model, tmp_path / "three", 3 * GIB, **deep))
    assert three.fits is True
    assert "weights 3 GiB, at least 1 GiB of KV cache, 5 GiB to use" in three.memory
    assert "2 prompts of 256 tokens at once" in three.memory
    five = planned(make_config, of_size(tiny_model, tmp_path / "five", 5 * GIB, **deep))
    assert five.fits is False
    assert "does not fit" in str(five)


@pytest.mark.usefixtures("gpu")
def test_weights_count_in_the_type_they_are_run_in(
    make_config: MakeConfig, tiny_model: Path, tmp_path: Path
) -> None:
    wide = of_size(tiny_model, tmp_path / "wide", 6 * GIB, torch_dtype="float32")
    assert "weights 3 GiB" in planned(make_config, wide).memory


def test_a_model_that_is_not_here_is_said_so(make_config: MakeConfig, tmp_path: Path) -> None:
    found = plan_command([make_config(f"model.path={tmp_path / 'nowhere'}")])
    assert found.fits is None
    assert "is not here" in found.memory


def words_of(tiny_model: Path, tmp_path: Path, rows: list[dict[str, object]]) -> list[str]:
    dataset = write_rows(tmp_path / "qa.jsonl", rows)
    return [
        *("eval", "--model", str(tiny_model), "--dataset", str(dataset)),
        *("--name", "night", "--output-dir", str(tmp_path / "outputs"), "--plan"),
    ]


def test_nothing_is_loaded_or_written(
    tiny_model: Path, tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    words = words_of(tiny_model, tmp_path, rows)
    program = (
        "import sys\nfrom slm_vllm.cli.main import cli\n"
        f"cli.main({[*words, '--json']!r}, standalone_mode=False)\n"
        "heavy = {'vllm', 'torch', 'transformers', 'tokenizers', 'ray', 'clearml', 'faiss'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    said, loaded = done.stdout.splitlines()
    content = json.loads(said)
    assert loaded == "[]"
    assert content["runs"][0]["rows"] == 10
    assert (content["fits"], content["joules"]) == (True, None)
    assert [path.name for path in tmp_path.iterdir()] == ["qa.jsonl"]


def test_the_command_ends_as_the_run_would(
    tiny_model: Path, tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    words = words_of(tiny_model, tmp_path, rows)
    table = CliRunner().invoke(cli, words)
    assert table.exit_code == 0
    assert table.output.splitlines()[2].split()[:3] == ["night", "10", "0"]
    assert str(tmp_path / "outputs/night") in table.output
    night = tmp_path / "outputs/night"
    night.mkdir(parents=True)
    (night / "results.json").write_text("{}")
    refused = CliRunner().invoke(cli, words)
    assert refused.exit_code == 2
    assert "Refused: " in refused.output
    queued = CliRunner().invoke(cli, [*words, "--queue", "gpu"])
    assert isinstance(queued.exception, ConfigError)

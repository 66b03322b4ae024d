"""The whole run around the engine, with an engine that needs no model."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from slm_vllm.config.schema import Config
from slm_vllm.errors import (
    ConfigError,
    DataError,
    EngineDiedError,
    EngineError,
    StorageError,
)
from slm_vllm.monitoring import energy
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.runs import asking, cell_run, draining, services
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.runs.signals import Interrupted
from slm_vllm.types import Completion, EngineInfo, GenerationRequest
from support.fake_engine import FakeEngine
from support.qa_files import write_rows

MakeConfig = Callable[..., Config]


def run(config: Config, engine: FakeEngine, **options: Any) -> dict[str, Any]:
    return evaluate(
        [config], RunOptions(make_engine=engine.factory(), own_process=True, **options)
    )[0]


def folder(config: Config) -> Path:
    return config.experiment.folder


def predictions(config: Config) -> pl.DataFrame:
    return pl.read_parquet(folder(config) / "predictions.parquet")


def manifest(config: Config) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder(config) / "manifest.json").read_bytes())
    return content


def token_recall(prediction: str, answers: list[str]) -> float:
    def words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))

    return max(len(words(prediction) & words(a)) / len(words(a)) for a in answers)


def test_the_energy_of_the_gpus_that_answered(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnGpus(FakeEngine):
        def start(self) -> EngineInfo:
            super().start()
            return EngineInfo("fake", 128, {"gpus": ["0", "3"]})

    counted = iter([1000.0, 1250.0])
    asked = []

    def gpu_joules(names: list[str]) -> float:
        asked.append(names)
        return next(counted)

    monkeypatch.setattr(energy, "gpu_joules", gpu_joules)
    config = make_config()
    result = run(config, OnGpus())
    assert result["throughput"]["joules_per_1000_questions"] == 25_000.0  # 250 J, 10 questions
    assert asked == [["0", "3"]] * 2
    # What was measured when there was something to ask stays.
    assert run(config, OnGpus())["throughput"] == result["throughput"]
    elsewhere = run(make_config("experiment.name=cpu"), FakeEngine())
    assert "joules_per_1000_questions" not in elsewhere["throughput"]


def test_what_else_a_row_says_is_kept(make_config: MakeConfig, tmp_path: Path) -> None:
    rows = [
        {"question": "one", "answer": "a", "topic": "rivers"},
        {"question": "two", "answer": "b"},
    ]
    config = make_config(f"dataset.path={write_rows(tmp_path / 'own.jsonl', rows)}")
    run(config, FakeEngine())
    listed = json.loads((folder(config) / "predictions.json").read_text())["predictions"]
    assert [row["metadata"] for row in listed] == [{"topic": "rivers"}, {}]


def test_a_run_leaves_every_file_with_the_right_content(make_config: MakeConfig) -> None:
    config, engine = make_config(), FakeEngine()
    result = run(config, engine)
    assert (engine.starts, engine.closes) == (1, 1)
    frame = predictions(config)
    assert frame["question_id"].to_list() == [f"q{i}" for i in range(10)]
    expected = [token_recall(row["prediction"], row["answers"]) for row in frame.to_dicts()]
    assert frame["token_recall"].to_list() == pytest.approx(expected)
    assert result["token_recall"] == pytest.approx(sum(expected) / 10, abs=1e-6)
    assert result["num_examples"] == result["counts"]["total"] == 10
    stored = json.loads((folder(config) / "results.json").read_text())
    assert stored == json.loads(json.dumps(result))
    listed = json.loads((folder(config) / "predictions.json").read_text())
    assert [row["question_id"] for row in listed["predictions"]] == frame["question_id"].to_list()
    assert listed["predictions"][3]["ground_truth"] == ["answer", "number 3"]
    assert listed["statistics"]["num_examples"] == 10
    manifest = json.loads((folder(config) / "manifest.json").read_text())
    assert manifest["dataset"]["sha256"] and manifest["model"]["revision"]
    state = json.loads((folder(config) / "state.json").read_text())
    assert (state["phase"], state["done"], state["errors"]) == ("finished", 10, 0)
    assert state["token_recall"] == result["token_recall"]
    assert state["questions_per_second"] == result["throughput"]["questions_per_second"]
    memory = json.loads((folder(config) / "memory_usage.json").read_text())
    assert memory["peak_rss"] > 10 and "generate" in memory["phases"]


def test_a_dead_engine_is_started_once_more_and_nothing_is_asked_twice(
    make_config: MakeConfig,
) -> None:
    engine = FakeEngine(dies_after=4, deaths=1)
    config = make_config()
    result = run(config, engine)
    assert (engine.starts, engine.closes) == (2, 2)
    asked = [request.request_id for request in engine.asked]
    assert len(asked) == len(set(asked)) == 10
    assert (result["counts"]["total"], result["counts"]["resumed"]) == (10, 0)
    assert predictions(config)["question_id"].to_list() == [f"q{i}" for i in range(10)]


def test_a_dead_engine_that_cannot_be_closed_is_started_again_all_the_same(
    make_config: MakeConfig,
) -> None:
    class Stuck(FakeEngine):
        def close(self) -> None:
            super().close()
            if self.closes == 1:
                raise RuntimeError("no answer from the dead")

    engine = Stuck(dies_after=4, deaths=1)
    assert run(make_config(), engine)["counts"]["errors"] == 0
    assert (engine.starts, engine.closes, len(engine.asked)) == (2, 2, 10)


def test_rows_that_fail_again_before_a_death_are_not_asked_a_third_time(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    run(config, FakeEngine(fails=frozenset({0, 1, 2})))
    engine = FakeEngine(fails=frozenset({0}), dies_after=1, deaths=1)
    assert run(config, engine, retry_errors=True)["counts"]["errors"] == 2
    assert len(engine.asked) == 3
    assert json.loads((folder(config) / "state.json").read_text())["done"] == 10


def test_an_engine_that_cannot_start_is_not_loaded_for_each_cell(make_config: MakeConfig) -> None:
    class Broken(FakeEngine):
        def start(self) -> EngineInfo:
            super().start()
            raise EngineError("no weights here")

    cells = [make_config(), make_config("experiment_mode=oracle")]
    for config in cells:
        short = config.experiment.model_copy(update={"max_samples": 2})
        run(config.model_copy(update={"experiment": short}), FakeEngine())
    engine = Broken()
    options = RunOptions(keep_going=True, own_process=True, make_engine=engine.factory())
    results = evaluate(cells, options)
    assert ["no weights here" in str(result) for result in results] == [True, True]
    assert (engine.starts, engine.closes) == (1, 1)


def test_seconds_of_a_restart_are_counted_once(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(cell_run, "time", clock)
    monkeypatch.setattr(asking, "time", clock)
    monkeypatch.setattr(draining, "time", clock)
    monkeypatch.setattr(services, "time", clock)

    class Slow(FakeEngine):
        def start(self) -> EngineInfo:
            clock.now += 100.0
            return super().start()

    result = run(make_config(), Slow(dies_after=4, deaths=1))
    assert (result["timing"]["load"], result["timing"]["generate"]) == (200.0, 0.0)
    assert result["duration_seconds"] == 200.0


def test_a_second_death_ends_the_run_and_the_same_command_goes_on(
    make_config: MakeConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    first = FakeEngine(dies_after=4)
    with pytest.raises(EngineDiedError, match="died"):
        run(config, first)
    assert first.starts == 2
    assert json.loads((folder(config) / "state.json").read_text())["phase"] == "failed"
    assert "answered already" not in capfd.readouterr().err
    second = FakeEngine()
    result = run(config, second)
    said = capfd.readouterr().err
    assert f"{config.experiment.name}: 2 of 10 questions are asked, the others are answered" in said
    assert "10/10" in said and "token recall 1.000 of 2 new" in said
    run(config, FakeEngine())
    assert "all 10 questions are answered already" in capfd.readouterr().err
    with Path(config.dataset.path).open("a") as file:
        file.write("\n")
    run(config, FakeEngine())
    assert "answered already. The dataset's file is another one now" in capfd.readouterr().err
    asked = [r.request_id for r in first.asked], [r.request_id for r in second.asked]
    assert len(asked[0]) == 8 and len(asked[1]) == 2
    assert len(set(asked[0]) | set(asked[1])) == 10
    assert result["counts"]["total"] == 10 and result["counts"]["resumed"] == 8
    assert predictions(config)["question_id"].to_list() == [f"q{i}" for i in range(10)]


def test_the_start_is_told_by_part(make_config: MakeConfig) -> None:
    config = make_config()

    class Engine(FakeEngine):
        def start(self) -> EngineInfo:
            log = config.experiment.folder / "engine.log"
            with log.open("a") as file:
                file.write("Loading weights took 1.25 seconds\n")
            return super().start()

    options = RunOptions(make_engine=Engine().factory(), own_process=True)
    start = evaluate([config], options)[0]["timing"]["start"]
    assert set(start) == {
        "process", "survey", "imports", "model files", "tokenizer", "prompt lengths", "engine",
        "engine weights", "first answer",
    }  # fmt: skip
    assert start["engine weights"] == 1.25
    assert all(seconds >= 0 for seconds in start.values())


def test_a_finished_run_needs_no_engine(make_config: MakeConfig) -> None:
    config = make_config()
    before = run(config, FakeEngine())
    again = FakeEngine()
    after = run(config, again)
    assert again.starts == 0
    assert after["metrics"] == before["metrics"]
    assert manifest(config)["engine"] == {"name": "fake", "max_model_len": 128}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_and_says_128_plus_its_number(
    make_config: MakeConfig, signum: signal.Signals, signals_arrive: None
) -> None:
    config = make_config()

    def stop(number: int) -> None:
        if number == 3:
            os.kill(os.getpid(), signum)

    with pytest.raises(Interrupted) as stopped:
        run(config, FakeEngine(on_answer=stop))
    assert stopped.value.exit_code == 128 + signum
    kept = len((folder(config) / "predictions.jsonl").read_text().splitlines())
    assert 4 <= kept < 10
    state = json.loads((folder(config) / "state.json").read_text())
    assert (state["phase"], state["done"]) == ("interrupted", kept)
    assert f"stopped by {signum.name}; what is" in (folder(config) / "experiment.log").read_text()
    rest = FakeEngine()
    run(config, rest)
    assert len(rest.asked) == 10 - kept


def test_a_signal_stops_the_questions_before_the_next_answer(
    make_config: MakeConfig, signals_arrive: None
) -> None:
    class Slow(FakeEngine):
        def stream(
            self, requests: Iterable[GenerationRequest]
        ) -> Generator[Completion, None, None]:
            for request in requests:
                self.asked.append(request)
                os.kill(os.getpid(), signal.SIGTERM)
            for request in self.asked:
                yield Completion(request.request_id, "answer", "stop", 1, 1)

    engine, config = Slow(), make_config()
    with pytest.raises(Interrupted):
        run(config, engine)
    assert len(engine.asked) == 1
    journal = (folder(config) / "predictions.jsonl").read_text().splitlines()
    assert len(journal) == 1


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kind", [SystemError, EngineError])
def test_a_signal_that_compiled_code_makes_an_error_of_is_still_a_signal(
    make_config: MakeConfig, kind: type[Exception], begun: bool
) -> None:
    """Ray does that while replicas load; with `keep_going` the other cells are not run either."""

    class Translating(FakeEngine):
        def start(self) -> EngineInfo:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()  # until the handler has run
            except BaseException as error:
                raise kind("returned a result with an exception set") from error
            raise AssertionError

    config, other = make_config(), make_config("experiment_mode=oracle")
    if begun:
        for first in (config, other):
            short = first.experiment.model_copy(update={"max_samples": 2})
            run(first.model_copy(update={"experiment": short}), FakeEngine())
    engine = Translating()
    options = RunOptions(keep_going=True, own_process=True, make_engine=engine.factory())
    with pytest.raises(Interrupted) as stopped:
        evaluate([config, other], options)
    assert stopped.value.exit_code == 143
    for cell in (config, other):
        assert json.loads((folder(cell) / "state.json").read_text())["phase"] == "interrupted"
    rest = FakeEngine()
    run(config, rest)
    assert len(rest.asked) == (8 if begun else 10)


def test_extended_and_reordered_data_reuses_what_is_valid(
    make_config: MakeConfig, rows: list[dict[str, object]], capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    run(config, FakeEngine())
    changed = dict(rows[0], question="another question")
    write_rows(Path(config.dataset.path), [dict(rows[1], question_id="new"), *rows[:0:-1], changed])
    engine = FakeEngine()
    before = manifest(config)["dataset"]["sha256"]
    run(config, engine)
    assert len(engine.asked) == 2
    now = manifest(config)["dataset"]["sha256"]
    said = "2 of 11 questions are asked. Since the earlier run there was a change: dataset.sha256 "
    assert f"{said}is {now[:12]} and was {before[:12]}\n" in capfd.readouterr().err
    assert predictions(config)["question_id"].to_list() == [
        "new",
        *[f"q{i}" for i in range(9, 0, -1)],
        "q0",
    ]


def test_answers_to_prompts_that_were_made_otherwise_are_told(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run(make_config(), FakeEngine())
    assert "of the earlier run" not in capfd.readouterr().err
    monkeypatch.setattr("slm_vllm.prompting.template.PromptTemplate.state", ("otherwise",))
    engine = FakeEngine()
    run(make_config(), engine)
    assert len(engine.asked) == 10
    said = "10 of 10 questions are asked: the 10 answers of the earlier run are to other rows or"
    assert said in capfd.readouterr().err


def test_a_finished_run_that_lost_its_journal_says_why_it_asks_again(
    make_config: MakeConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    run(config, FakeEngine())
    capfd.readouterr()
    (folder(config) / "predictions.jsonl").unlink()
    run(config, FakeEngine())
    said = (
        "10 of 10 questions are asked again: predictions.jsonl of the finished run has no answers"
    )
    assert said in capfd.readouterr().err


def test_more_samples_go_on_from_fewer(make_config: MakeConfig) -> None:
    run(make_config("experiment.max_samples=3"), FakeEngine())
    engine = FakeEngine()
    run(make_config("experiment.max_samples=7"), engine)
    assert len(engine.asked) == 4


def test_another_configuration_is_refused_and_overwrite_is_the_way_out(
    make_config: MakeConfig,
) -> None:
    run(make_config(), FakeEngine())
    other = make_config("generation.max_new_tokens=7")
    with pytest.raises(ConfigError, match=r"--name.*--overwrite"):
        run(other, FakeEngine())
    engine = FakeEngine()
    run(other, engine, overwrite=True)
    assert len(engine.asked) == 10


def test_overwrite_removes_nothing_where_a_later_folder_is_in_use(
    make_config: MakeConfig,
) -> None:
    configs = [make_config(), make_config("experiment_mode=oracle")]
    run(configs[0], FakeEngine())
    other = RunFolder(folder(configs[1]))
    other.lock()
    options = RunOptions(make_engine=FakeEngine().factory(), overwrite=True)
    with pytest.raises(StorageError, match="another process is running in this folder"):
        evaluate(configs, options)
    other.close()
    assert json.loads((folder(configs[0]) / "results.json").read_text())["num_examples"] == 10
    assert len(evaluate(configs, options)) == 2


@pytest.mark.parametrize("signalled", [False, True])
def test_the_first_reason_stays_where_the_state_cannot_be_written(
    make_config: MakeConfig, signalled: bool
) -> None:
    config = make_config()

    def end(number: int) -> None:
        if number == 3:
            (folder(config) / ".state.json.partial").mkdir()  # in the way of the next one
            if not signalled:
                raise EngineError("the engine broke")
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted if signalled else EngineError, match=r"SIGTERM|engine broke"):
        run(config, FakeEngine(on_answer=end))
    log = (folder(config) / "experiment.log").read_text()
    assert "state.json: cannot be written" in log


def test_a_run_that_failed_before_its_first_answer_is_in_nobodys_way(
    make_config: MakeConfig,
) -> None:
    with pytest.raises(EngineError):
        run(make_config(), FakeEngine(dies_after=0))
    run(make_config("generation.max_new_tokens=7"), FakeEngine())


def test_two_processes_do_not_share_a_folder(make_config: MakeConfig) -> None:
    config = make_config()
    holder = RunFolder(folder(config))
    holder.open(config)
    with pytest.raises(StorageError, match="another process"):
        run(config, FakeEngine())
    holder.close()
    run(config, FakeEngine())


def test_failed_requests_are_counted_and_can_be_asked_again(make_config: MakeConfig) -> None:
    config = make_config()
    result = run(config, FakeEngine(fails=frozenset({2, 5})))
    assert result["counts"]["errors"] == 2
    assert predictions(config)["error"].drop_nulls().to_list() == ["refused", "refused"]
    assert run(config, FakeEngine())["counts"]["errors"] == 2
    again = FakeEngine()
    assert run(config, again, retry_errors=True)["counts"]["errors"] == 0
    assert len(again.asked) == 2


def test_strict_ends_at_a_failed_request(make_config: MakeConfig) -> None:
    with pytest.raises(EngineError, match="q2: refused"):
        run(make_config("experiment.strict=true"), FakeEngine(fails=frozenset({2})))


def test_a_question_over_the_budget_is_an_error_row(
    make_config: MakeConfig, rows: list[dict[str, object]]
) -> None:
    config = make_config()
    rows[4] = dict(rows[4], question="long " * 300)
    write_rows(Path(config.dataset.path), rows)
    result = run(config, FakeEngine())
    assert result["counts"]["errors"] == 1
    failed = predictions(config).filter(pl.col("error").is_not_null())
    assert failed["question_id"].to_list() == ["q4"]
    assert "room for" in failed["error"][0]


def test_rejected_and_unscored_rows_are_counted(
    make_config: MakeConfig, rows: list[dict[str, object]]
) -> None:
    config = make_config()
    path = write_rows(Path(config.dataset.path), [*rows, dict(rows[0], question_id="u", answer=[])])
    path.write_text(path.read_text() + '{"question_id": "broken", \n' + json.dumps(rows[1]) + "\n")
    result = run(config, FakeEngine())
    counts = result["counts"]
    assert (counts["total"], counts["unscored"], counts["rejected"]) == (11, 1, 2)
    rejected = [
        json.loads(line) for line in (folder(config) / "rejected.jsonl").read_text().splitlines()
    ]
    assert [row["line"] for row in rejected] == [12, 13]
    with pytest.raises(DataError, match="line 12"):
        run(make_config("experiment.strict=true", "experiment.name=other"), FakeEngine())


def test_rejected_rows_of_an_earlier_command_go_from_every_cell(
    make_config: MakeConfig, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    configs = [make_config(), make_config("experiment_mode=oracle")]
    options = RunOptions(make_engine=FakeEngine().factory())
    write_rows(tmp_path / "qa.jsonl", [*rows, {"question": ""}])
    evaluate(configs, options)
    assert all((folder(config) / "rejected.jsonl").exists() for config in configs)
    write_rows(tmp_path / "qa.jsonl", rows)
    evaluate(configs, options)
    assert not any((folder(config) / "rejected.jsonl").exists() for config in configs)


def test_modes_share_one_engine_and_see_different_passages(make_config: MakeConfig) -> None:
    engine = FakeEngine()
    configs = [
        make_config(f"experiment_mode={mode}") for mode in ("no_context", "oracle", "retriever")
    ]
    results = evaluate(configs, RunOptions(make_engine=engine.factory()))
    assert engine.starts == 1 and len(engine.asked) == 30
    closed, oracle, retrieved = (predictions(config) for config in configs)
    assert closed["n_passages_used"].to_list() == [0] * 10
    assert [c[0]["text"] for c in oracle["contexts"]] == [f"context {i}" for i in range(10)]
    assert (oracle["n_prompt_tokens"] > closed["n_prompt_tokens"]).all()
    assert {p["document_id"] for c in retrieved["contexts"] for p in c} <= {
        f"d{i}" for i in range(10)
    }
    assert results[2]["retrieval"]["document_mrr"]["n"] == 10
    assert results[0]["retrieval"] == {}


def test_contexts_can_be_left_out_of_the_predictions(make_config: MakeConfig) -> None:
    config = make_config("experiment_mode=oracle", "experiment.save_contexts=false")
    run(config, FakeEngine())
    assert predictions(config)["contexts"].null_count() == 10


def test_an_output_folder_that_cannot_be_made_is_a_storage_error(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--output-dir"):
        run(make_config(f"experiment.output_dir={tmp_path / 'file' / 'x'}"), FakeEngine())


def test_datasets_and_retrievers_share_one_engine(
    make_config: MakeConfig, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    other = write_rows(tmp_path / "other.jsonl", [dict(row, answer=["x"]) for row in rows[:4]])
    second = ("dataset.name=other", f"dataset.path={other}")
    configs = [
        make_config("experiment_mode=retriever"),
        make_config("experiment_mode=retriever", *second),
        make_config("experiment_mode=retriever", "retriever=rank_bm25", *second,
                    "experiment.name=third"),
        make_config("experiment_mode=oracle", *second),
    ]  # fmt: skip
    engine = FakeEngine()
    results = evaluate(configs, RunOptions(make_engine=engine.factory()))
    assert engine.starts == 1
    assert [result["counts"]["total"] for result in results] == [10, 4, 4, 4]
    assert [result["dataset"] for result in results] == ["qa", "other", "other", "other"]
    assert [result["retriever"] for result in results] == ["bm25", "bm25", "rank_bm25", None]
    manifests = [json.loads((folder(c) / "manifest.json").read_text()) for c in configs]
    assert manifests[0]["dataset"]["sha256"] != manifests[1]["dataset"]["sha256"]
    alone = make_config("experiment_mode=retriever", *second, "experiment.name=alone")
    run(alone, FakeEngine())
    columns = ["question_id", "prediction", "contexts"]
    assert predictions(alone).select(columns).equals(predictions(configs[1]).select(columns))


def test_keep_going_records_the_cell_that_fails_and_runs_the_others(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    configs = [
        make_config("dataset.name=empty", f"dataset.path={empty}"),
        make_config(),
        make_config("experiment.strict=true", "experiment.name=strict"),
        make_config("experiment_mode=oracle"),
    ]
    engine = FakeEngine(fails=frozenset({3}))
    options = RunOptions(keep_going=True, own_process=True, make_engine=engine.factory())
    results = evaluate(configs, options)
    assert [result.get("exit_code") for result in results] == [3, None, 4, None]
    assert str(empty) in results[0]["error"]
    phases = [json.loads((folder(c) / "state.json").read_text())["phase"] for c in configs]
    assert phases == ["failed", "finished", "failed", "finished"]
    with pytest.raises(DataError):
        evaluate(configs, RunOptions(make_engine=FakeEngine().factory()))


def test_a_dead_engine_ends_every_cell_even_when_going_on(make_config: MakeConfig) -> None:
    configs = [make_config(), make_config("experiment_mode=oracle")]
    options = RunOptions(keep_going=True, make_engine=FakeEngine(dies_after=2).factory())
    with pytest.raises(EngineDiedError):
        evaluate(configs, options)
    for config in configs:
        assert json.loads((folder(config) / "state.json").read_text())["phase"] == "failed"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("engine.replicas_per_gpu=100000", "each engine needs one"),
        ("hardware.deterministic=true", "needs float32"),
    ],
)
def test_what_this_machine_cannot_have_is_refused_before_anything_is_written(
    make_config: MakeConfig, word: str, reason: str
) -> None:
    config = make_config(word, "model.dtype=bfloat16")
    with pytest.raises(ConfigError, match=reason):
        run(config, FakeEngine())
    assert not folder(config).exists()


def test_a_name_that_looks_like_a_pattern_is_a_name(make_config: MakeConfig) -> None:
    config = make_config("experiment.name='a[b]*?'")
    assert run(config, FakeEngine())["num_examples"] == 10


def test_giving_a_finished_runs_command_again_keeps_what_was_measured(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    before = run(config, FakeEngine())
    memory = (folder(config) / "memory_usage.json").read_bytes()
    again = run(config, FakeEngine())
    assert before["throughput"]["questions_per_second"] is not None
    assert [again[key] for key in ("throughput", "timing", "duration_seconds")] == [
        before[key] for key in ("throughput", "timing", "duration_seconds")
    ]
    assert (folder(config) / "memory_usage.json").read_bytes() == memory
    assert again["counts"]["resumed"] == 10

"""`judge=` in the configuration of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slm_vllm import evaluate
from slm_vllm.cli.main import cli
from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.judging.judge_at_end import JudgeAtEnd, judge_at_end
from slm_vllm.judging.session import JudgeOptions
from slm_vllm.reporting.table import results_table
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.rundir.reading import load_run
from support.fake_engine import FakeEngine
from support.fake_server import FakeServer
from support.qa_files import write_rows
from support.scripted_judge import ScriptedJudge, case_of


def the_judge(config: Config) -> JudgeAtEnd:
    found = judge_at_end([config])
    assert found is not None
    return found


def test_it_is_off_by_default() -> None:
    config = compose_config(["hardware=cpu"])
    assert config.judge is None
    assert judge_at_end([config]) is None


def test_a_key_is_enough_and_changes_no_answer() -> None:
    config = compose_config(["hardware=cpu", "judge.model=demo", "judge.votes=3"])
    found = the_judge(config)
    assert found.options.votes == 3
    assert found.config.model.path == "demo" and found.config.cache_dir == config.cache_dir
    assert config_hash(config) == config_hash(compose_config(["hardware=cpu"]))


def test_the_shipped_judge_is_a_judge() -> None:
    found = the_judge(compose_config(["hardware=cpu", "judge=qwen_4b"]))
    assert found.config.model.name == "qwen_4b"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("judge.votes=0", "judge.votes"),
        ("judge.base_url=http://me:secret@host/v1", "password"),
        ("judge.votes=1", "name the judge"),
        ("judge.model=qwen_9b", "qwen_9b"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as said:
        judge_at_end([compose_config(["hardware=cpu", word])])
    assert "secret@" not in str(said.value)


@pytest.mark.parametrize(
    ("who", "setting", "message"),
    [
        ("judge.model=demo", "generation.temperature=0.5", "asked greedily"),
        ("judge.base_url=http://h/v1", "engine.endpoint=completions", "a judge without --model"),
    ],
)
def test_settings_that_no_judge_may_have(who: str, setting: str, message: str) -> None:
    config = compose_config(["hardware=cpu", who, f"judge.settings=['{setting}']"])
    with pytest.raises(ConfigError, match=message):
        judge_at_end([config])


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--model", "demo", "--dataset", "demo", "--mode", "oracle", "--plan"],
        ["sweep", "--models", "demo", "--datasets", "demo", "--modes", "oracle", "--dry-run"],
    ],
)
def test_a_plan_refuses_what_the_command_would(words: list[str], tmp_path: Path) -> None:
    given = [*words, "--output-dir", str(tmp_path), "judge.model=qwen_9b"]
    found = CliRunner().invoke(cli, given)
    assert isinstance(found.exception, ConfigError) and "qwen_9b" in str(found.exception)


def test_more_votes_than_there_are_orders_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 6"):
        judge_at_end([compose_config(["hardware=cpu", "judge.model=demo", "judge.votes=7"])])


def test_runs_that_failed_have_nothing_to_judge(
    config: Config, run_of: Callable[..., Path]
) -> None:
    path = run_of("one", "x", "y")
    judge = ScriptedJudge(lambda _, answer: "correct" if answer == "x" else "incorrect")
    folders = [path, path.with_name("two")]
    after = JudgeAtEnd(config, JudgeOptions(make_engine=judge.factory), folders)
    failed = {"name": "two", "error": "no", "exit_code": 4}
    one, two = after([load_run(path).results, failed])
    assert one["metrics"]["judge_correct"]["mean"] == 0.5
    assert two == failed
    assert "correct (judge)" in results_table([one])
    assert "judge" not in results_table([load_run(run_of("three", "x")).results])


def test_a_model_folder_that_holds_none_is_refused_before_the_first_question(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for judge, message in (("nowhere", "does not exist"), ("empty", "cannot be used")):
        engine = FakeEngine()
        with pytest.raises(EngineError, match=message):
            evaluate(
                str(tiny_model),
                write_rows(tmp_path / "qa.jsonl", [{"question": "a", "answer": "b"}]),
                output_dir=tmp_path / "outputs",
                overrides=["hardware=cpu", f"judge.model={tmp_path / judge}"],
                engine=engine.factory(),
            )
        assert not (tmp_path / "outputs").exists()


def _reply(number: int, body: dict[str, Any]) -> Any:
    if "messages" not in body or "Grade:" not in body["messages"][-1]["content"]:
        return None
    _, answer = case_of(body["messages"][-1]["content"])
    letter = "A" if answer.startswith("answer") else "B"
    return 200, {}, {"choices": [{"message": {"content": letter}, "finish_reason": "stop"}]}


def test_a_run_is_judged_at_its_end(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    rows = [{"question": f"question {i}", "answer": f"gold {i}"} for i in range(3)]
    with FakeServer(_reply, cards=[{"id": "big-one"}]) as server:
        words = ["hardware=cpu", f"cache_dir={tmp_path / 'cache'}", f"judge.base_url={server.url}"]
        (run,) = evaluate(
            str(tiny_model),
            write_rows(tmp_path / "qa.jsonl", rows),
            mode="no_context",
            output_dir=tmp_path / "outputs",
            overrides=words,
            engine=FakeEngine().factory(),
        )
    assert run.judgement is not None and run.judgement["judge"]["model"] == "big-one"
    assert run.predictions["judge_correct"].to_list() == [1.0, 1.0, 1.0]

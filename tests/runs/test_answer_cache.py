"""Answers shared by runs through one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, StorageError
from slm_vllm.runs.answer_cache import AnswerCache
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.types import Completion, GenerationRequest
from support.fake_engine import FakeEngine

MakeConfig = Callable[..., Config]
ON = "experiment.answer_cache=true"


def run(config: Config, engine: FakeEngine, **options: Any) -> dict[str, Any]:
    return evaluate([config], RunOptions(make_engine=engine.factory(), **options))[0]


def predictions(config: Config) -> pl.DataFrame:
    folder = config.experiment.folder
    return pl.read_parquet(folder / "predictions.parquet")


def test_another_run_of_the_same_questions_needs_no_engine(make_config: MakeConfig) -> None:
    first = make_config(ON, "experiment.name=first")
    run(first, FakeEngine())
    second = make_config(ON, "experiment.name=second", "dataset.name=other")
    engine = FakeEngine()
    result = run(second, engine)
    assert engine.starts == 0
    assert result["counts"]["from_cache"] == 10 and result["counts"]["resumed"] == 0
    assert result["throughput"]["questions_per_second"] is None
    assert predictions(second).equals(predictions(first))
    # Taken up again, they are answers of an earlier process like any others.
    assert run(second, engine)["counts"]["resumed"] == 10


def test_it_is_off_unless_asked_for(make_config: MakeConfig) -> None:
    run(make_config(ON, "experiment.name=first"), FakeEngine())
    engine = FakeEngine()
    result = run(make_config("experiment.name=second"), engine)
    assert len(engine.asked) == 10 and result["counts"]["from_cache"] == 0


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("generation.max_new_tokens", 4, 5),
        ("generation.stop", "[y]", "[x]"),
        ("model.dtype", "float32", "bfloat16"),
    ],
)
def test_what_changes_an_answer_asks_again(
    make_config: MakeConfig, name: str, before: object, after: object
) -> None:
    run(make_config(ON, "experiment.name=first", f"{name}={before}"), FakeEngine())
    engine = FakeEngine()
    run(make_config(ON, "experiment.name=second", f"{name}={after}"), engine)
    assert len(engine.asked) == 10


def test_only_what_is_missing_is_asked(make_config: MakeConfig) -> None:
    run(make_config(ON, "experiment.name=first", "experiment.max_samples=4"), FakeEngine())
    engine = FakeEngine()
    config = make_config(ON, "experiment.name=second")
    assert run(config, engine)["counts"]["from_cache"] == 4
    assert len(engine.asked) == 6
    whole = make_config("experiment.name=third")
    run(whole, FakeEngine())
    assert predictions(config).equals(predictions(whole))


def test_a_failed_request_is_not_kept(make_config: MakeConfig) -> None:
    run(make_config(ON, "experiment.name=first"), FakeEngine(fails=frozenset({2})))
    engine = FakeEngine()
    result = run(make_config(ON, "experiment.name=second"), engine)
    assert len(engine.asked) == 1 and result["counts"]["errors"] == 0


def test_a_question_over_the_budget_is_still_an_error_row(make_config: MakeConfig) -> None:
    words = (ON, "model.max_model_len=28", "generation.max_new_tokens=4")
    first = run(make_config(*words, "experiment.name=first"), FakeEngine())
    second = run(make_config(*words, "experiment.name=second"), FakeEngine())
    assert 10 > second["counts"]["errors"] == first["counts"]["errors"] > 0
    assert second["counts"]["from_cache"] == 10 - first["counts"]["errors"]


def test_a_cache_that_breaks_in_mid_run_costs_no_answer(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    def drop(number: int) -> None:
        if number == 3:
            with sqlite3.connect(tmp_path / "cache" / "answers.sqlite") as other:
                other.execute("DROP TABLE answers")

    config = make_config(ON)
    result = run(config, FakeEngine(on_answer=drop))
    assert result["counts"]["total"] == 10 and result["counts"]["errors"] == 0
    log = config.experiment.folder / "experiment.log"
    assert log.read_text().count("the answer cache is not used any more") == 1


def test_a_file_that_is_no_cache_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "answers.sqlite").write_text("not a database, but long enough " * 99)
    with pytest.raises(StorageError, match=r"answers\.sqlite: cannot be used as answer cache"):
        run(make_config(ON), FakeEngine())


@pytest.mark.parametrize(
    "words",
    [
        ["generation.temperature=0.7"],
        ["engine.name=openai", "engine.base_url=http://localhost:1/v1"],
    ],
)
def test_answers_that_need_not_repeat_are_refused(
    make_config: MakeConfig, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"valid:\n  experiment.answer_cache"):
        make_config(ON, *words)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 200_000)), st.text(), st.integers(0, 99)), max_size=200
    )
)
def test_what_was_added_is_found_by_another_process(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_config: Config,
    entries: list[tuple[list[int], str, int]],
) -> None:
    path = tmp_path_factory.mktemp("cache") / "answers.sqlite"
    last = {tuple(ids): (text, n) for ids, text, n in entries}
    with AnswerCache(path, tiny_config, "r", "float32") as one:
        for ids, text, n in entries:
            one.add(ids, Completion("x", text, "stop", len(ids), n))
    requests = [GenerationRequest(json.dumps(ids), list(ids)) for ids in last]
    requests.append(GenerationRequest("unknown", [1 << 40]))
    with AnswerCache(path, tiny_config, "r", "float32") as two:
        found = {c.request_id: (c.text, c.n_completion_tokens) for c in two.find(requests)}
    assert found == {json.dumps(ids): value for ids, value in last.items()}
    with AnswerCache(path, tiny_config, "other weights", "float32") as three:
        assert list(three.find(requests)) == []


def test_two_processes_write_at_once(tmp_path: Path, make_config: MakeConfig) -> None:
    path, config = tmp_path / "answers.sqlite", make_config()
    with (
        AnswerCache(path, config, "r", "float32") as one,
        AnswerCache(path, config, "r", "float32") as two,
    ):
        for number in range(500):
            for cache in (one, two):
                cache.add([number], Completion("x", "same", "stop", 1, 1))
    with AnswerCache(path, config, "r", "float32") as three:
        requests = [GenerationRequest(str(n), [n]) for n in range(500)]
        assert [c.request_id for c in three.find(requests)] == [r.request_id for r in requests]


@pytest.mark.parametrize(
    "other",
    ["engine.served_model=b", "engine.endpoint=chat", "engine.extra_body={top_k: 1}"],
)
def test_answers_of_a_server_are_those_of_what_it_was_asked_for(
    tmp_path: Path, make_config: MakeConfig, other: str
) -> None:
    served = ["engine.name=openai", "engine.base_url=[http://127.0.0.1:1/v1]"]
    asked = make_config(*served, "engine.served_model=a")
    elsewhere = make_config(*served, "engine.served_model=a", "engine.timeout=9")
    path, request = tmp_path / "answers.sqlite", GenerationRequest("x", [1])
    with AnswerCache(path, asked, "r", "auto") as one:
        one.add([1], Completion("x", "said", "stop", 1, 1))
    with AnswerCache(path, elsewhere, "r", "auto") as two:
        assert [answer.text for answer in two.find([request])] == ["said"]
    with AnswerCache(path, make_config(*served, other), "r", "auto") as three:
        assert list(three.find([request])) == []
    with AnswerCache(path, make_config(), "r", "auto") as four:
        assert list(four.find([request])) == []


def test_an_answer_apart_from_its_thought_is_so_from_the_cache_too(
    tmp_path: Path, tiny_config: Config
) -> None:
    path = tmp_path / "answers.sqlite"
    answers = [Completion(str(n), "said", "stop", 1, 1, is_whole=n == 1) for n in range(2)]
    with AnswerCache(path, tiny_config, "r", "float32") as one:
        for number, answer in enumerate(answers):
            one.add([number], answer)
    requests = [GenerationRequest(str(n), [n]) for n in range(2)]
    with AnswerCache(path, tiny_config, "r", "float32") as two:
        assert list(two.find(requests)) == answers


@pytest.fixture(scope="module")
def tiny_config() -> Config:
    return compose_config(["model=demo", "dataset=demo", "hardware=cpu", "tracking.tracker=none"])

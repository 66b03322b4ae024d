"""Runs that end when their difference from another run is settled."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from slm_vllm.cli.main import cli
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, DataError, EngineDiedError, SlmVllmError
from slm_vllm.rundir import names
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.runs.until_decided import looks_at, question_order
from slm_vllm.scoring.sequential import confidence_sequence
from slm_vllm.sweeps.plan import _planned
from slm_vllm.types import Completion, GenerationRequest
from support.fake_engine import FakeEngine
from support.qa_files import write_rows

MakeConfig = Callable[..., Config]
ROWS = 300
DECIDED = ("experiment.against=base", "experiment.until=decided", "experiment.name=new")


class Says(FakeEngine):
    """Says the right word to prompts of so many of 25 lengths."""

    def __init__(self, right: int, **options: Any) -> None:
        super().__init__(**options)
        self._right = right

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for done in super().stream(requests):
            word = "answer" if done.n_prompt_tokens % 25 < self._right else "wrong"
            yield Completion(done.request_id, word, "stop", done.n_prompt_tokens, 1)


@pytest.fixture
def rows() -> list[dict[str, object]]:
    return [
        {"question_id": f"q{i}", "question": f"a {'very ' * (i % 25)}long", "answer": ["answer"]}
        for i in range(ROWS)
    ]


@pytest.fixture
def base(make_config: MakeConfig) -> Path:
    config = make_config("experiment.name=base")
    run(config, Says(5))
    return folder(config)


def run(config: Config, engine: FakeEngine) -> dict[str, Any]:
    return evaluate([config], RunOptions(make_engine=engine.factory()))[0]


def folder(config: Config) -> Path:
    return config.experiment.folder


def looks(config: Config) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder(config) / names.LOOKS).read_text().splitlines()]


def predictions(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path / names.PREDICTIONS)


def test_a_large_difference_needs_few_questions(make_config: MakeConfig, base: Path) -> None:
    config, engine = make_config(*DECIDED), Says(22)
    result = run(config, engine)
    until = result["until"]
    assert until["decision"] == "better"
    assert until["questions"] == result["counts"]["total"] == len(engine.asked) < ROWS
    assert (until["against"], until["of"], until["margin"]) == ("base", ROWS, 0.01)
    assert [look["decision"] for look in looks(config)] == [None] * (until["looks"] - 1) + [
        "better"
    ]
    ours, theirs = predictions(folder(config)), predictions(base)
    both = ours.join(theirs, on="question_id", suffix="_base")
    assert both.height == ours.height == until["questions"]
    d = (both["token_recall"] - both["token_recall_base"]).to_numpy()
    expected = confidence_sequence(d)
    assert until["interval"] == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert until["difference"] == pytest.approx(d.mean(), abs=1e-6)


def test_questions_are_the_first_of_a_random_order(make_config: MakeConfig, base: Path) -> None:
    config = make_config(*DECIDED)
    asked = run(config, Says(22))["until"]["questions"]
    ids = pl.Series([f"q{i}" for i in range(ROWS)])
    order = question_order(ids, 42)[:asked]
    assert predictions(folder(config))["question_id"].to_list() == ids[np.sort(order)].to_list()
    assert sorted(order) != list(range(asked))


def test_the_order_is_that_of_the_ids_and_the_seed() -> None:
    ids = pl.Series([f"q{i}" for i in range(50)])
    first = ids[question_order(ids, 42)].to_list()
    assert ids.reverse()[question_order(ids.reverse(), 42)].to_list() == first
    more = pl.concat([ids, pl.Series(["x", "y"])])
    longer = more[question_order(more, 42)].to_list()
    assert [one for one in longer if one not in "xy"] == first
    assert ids[question_order(ids, 43)].to_list() != first


def test_the_same_command_again_asks_nothing(make_config: MakeConfig, base: Path) -> None:
    config, again = make_config(*DECIDED), Says(22)
    first = run(config, Says(22))
    second = run(config, again)
    assert (again.starts, again.asked) == (0, [])
    assert second["until"] == first["until"]
    assert second["metrics"] == first["metrics"]
    assert second["counts"]["resumed"] == first["counts"]["total"]


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    make_config: MakeConfig, base: Path
) -> None:
    config = make_config(*DECIDED)
    whole = run(make_config(*DECIDED, "experiment.name=whole"), Says(6))
    assert whole["until"]["looks"] > 1

    class Dying(Says):
        def stream(
            self, requests: Iterable[GenerationRequest]
        ) -> Generator[Completion, None, None]:
            for done in super().stream(requests):
                if len(self.asked) > 90:
                    raise EngineDiedError("the engine died")
                yield done

    with pytest.raises(EngineDiedError):
        run(config, Dying(6))
    assert len(looks(config)) == 1
    result = run(config, Says(6))
    assert result["until"] == whole["until"]
    assert result["metrics"] == whole["metrics"]
    assert result["counts"]["resumed"] == 90


def test_without_until_the_rest_is_asked(make_config: MakeConfig, base: Path) -> None:
    asked = run(make_config(*DECIDED), Says(22))["counts"]["total"]
    whole, engine = make_config("experiment.name=new"), Says(22)
    assert config_hash(whole) == config_hash(make_config(*DECIDED))
    assert _planned(whole, False).status == "begun"
    result = run(whole, engine)
    assert len(engine.asked) == ROWS - asked
    assert result["counts"]["total"] == ROWS
    assert "until" not in result


def test_answers_that_are_there_already_all_count(make_config: MakeConfig, base: Path) -> None:
    run(make_config("experiment.name=new"), Says(22))
    engine = Says(22)
    result = run(make_config(*DECIDED), engine)
    assert (engine.asked, result["counts"]["total"]) == ([], ROWS)
    assert (result["until"]["questions"], result["until"]["looks"]) == (ROWS, 1)


def test_equal_runs_have_no_difference(make_config: MakeConfig, base: Path) -> None:
    result = run(make_config(*DECIDED, "experiment.margin=0.2"), Says(5))
    assert result["until"]["decision"] == "no difference"
    assert result["until"]["questions"] < ROWS


def test_what_is_never_settled_asks_all(make_config: MakeConfig, base: Path) -> None:
    result = run(make_config(*DECIDED), Says(5))
    assert result["until"]["decision"] is None
    assert result["until"]["questions"] == ROWS


def test_a_run_that_is_only_to_end_when_it_is_worse(make_config: MakeConfig, base: Path) -> None:
    words = (*DECIDED[::2], "experiment.until=worse", "experiment.level=0.01")
    good = run(make_config(*words), Says(22))["until"]
    assert (good["decision"], good["questions"], good["level"]) == ("better", ROWS, 0.01)
    config = make_config(*words, "experiment.name=bad", "experiment.against=new")
    bad = run(config, Says(5))["until"]
    assert bad["decision"] == "worse"
    assert bad["questions"] < ROWS
    ours, theirs = predictions(folder(config)), predictions(base.parent / "new")
    both = ours.join(theirs, on="question_id", suffix="_new")
    d = (both["token_recall"] - both["token_recall_new"]).to_numpy()
    expected = confidence_sequence(d, 0.01)
    assert bad["interval"] == pytest.approx([expected.low, expected.high], abs=1e-6)


def test_compare_pairs_over_the_questions_that_were_asked(
    make_config: MakeConfig, base: Path
) -> None:
    until = run(make_config(*DECIDED), Says(22))["until"]
    words = ["compare", "base", "new", "--output-dir", str(base.parent)]
    (dataset,) = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)["datasets"]
    (pair,) = dataset["pairs"]
    assert [one["n"] for one in dataset["runs"]] == [300, until["questions"]]
    assert pair["is_always_valid"]
    assert pair["difference"]["ci95"] == pytest.approx(until["interval"], abs=1e-5)
    text = CliRunner().invoke(cli, words).stdout
    assert "settled: above it" in text and "valid at any look" in text and "]*" in text


def test_other_missing_questions_still_need_intersect(make_config: MakeConfig, base: Path) -> None:
    run(make_config(*DECIDED), Says(22))
    run(make_config("experiment.name=short", "experiment.max_samples=250"), Says(5))
    words = ["compare", "base", "short", "new", "--output-dir", str(base.parent)]
    assert isinstance(CliRunner().invoke(cli, words).exception, ConfigError)


def test_failures_of_the_other_run_are_told(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_config("experiment.name=base"), FakeEngine(fails=frozenset(range(7))))
    run(make_config(*DECIDED), Says(25))
    assert "new: 7 of 300 questions failed in base and count as" in caplog.text


def spoiled(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: value}))


def test_what_cannot_be_decided_against_is_refused(
    make_config: MakeConfig, base: Path, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    engine = Says(22)

    def refused(*words: str) -> SlmVllmError:
        with pytest.raises(SlmVllmError) as caught:
            run(make_config(*DECIDED, *words), engine)
        assert engine.starts == 0
        return caught.value

    run(make_config(*DECIDED), Says(22))
    other = ("experiment.name=other", "experiment.against=new")
    assert "stopped before" in str(refused(*other))
    assert isinstance(refused("experiment.name=other", "experiment.against=none"), ConfigError)
    changed = [{**row, "question": f"{row['question']}?"} for row in rows]
    asks = f"dataset.path={write_rows(tmp_path / 'changed.jsonl', changed)}"
    assert "another text" in str(refused("experiment.name=other", asks))
    strange = [{**row, "question_id": f"x{row['question_id']}"} for row in rows]
    asks = f"dataset.path={write_rows(tmp_path / 'strange.jsonl', strange)}"
    assert "none of these" in str(refused("experiment.name=other", asks))
    spoiled(base / names.STATE, "phase", "interrupted")
    assert isinstance(refused(), DataError)


def test_until_and_against_go_together(make_config: MakeConfig) -> None:
    for words in ("experiment.until=decided", "experiment.against=base"):
        with pytest.raises(ConfigError, match="go together"):
            make_config(words)


@pytest.mark.parametrize("against", ["new", "{}/new"])
def test_a_run_is_not_set_against_itself(make_config: MakeConfig, against: str) -> None:
    against = against.format(make_config().experiment.output_dir)
    words = ("experiment.name=new", "experiment.until=decided", f"experiment.against={against}")
    with pytest.raises(ConfigError, match="is this run itself"):
        make_config(*words)


def test_looks_are_a_step_and_a_tenth_apart() -> None:
    assert list(looks_at(300, 64)) == [64, 128, 192, 256, 300]
    assert list(looks_at(2000, 64))[10:13] == [704, 775, 853]
    assert list(looks_at(0, 64)) == []

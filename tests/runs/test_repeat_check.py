"""Rows that are asked once more at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slm_vllm.config.schema import Config
from slm_vllm.errors import EngineDiedError
from slm_vllm.rundir import names
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.sweeps.plan import _planned
from slm_vllm.types import Completion, GenerationRequest, Sample
from support.fake_engine import FakeEngine

MakeConfig = Callable[..., Config]
CHECKED = "experiment.repeat_check=6"


class Unsteady(FakeEngine):
    """Answers prompts of an even length otherwise when they are asked alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.alone: list[str] = []
        self.forgot = 0

    def forget_prompts(self) -> None:
        self.forgot += 1

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        if not isinstance(requests, list):
            yield from super().stream(requests)
            return
        (request,) = requests
        for completion in super().stream(requests):
            self.alone.append(request.request_id)
            n = completion.n_prompt_tokens
            yield completion if n % 2 else Completion(request.request_id, "number", "stop", n, 1)


def run(config: Config, engine: FakeEngine) -> dict[str, Any]:
    return evaluate([config], RunOptions(make_engine=engine.factory()))[0]


def folder(config: Config) -> Path:
    return config.experiment.folder


def passes(config: Config) -> pl.DataFrame:
    """Both passes, from the files."""
    first = pl.read_ndjson(folder(config) / names.JOURNAL)
    second = pl.read_ndjson(folder(config) / names.REPEATED)
    return first.join(second, on="key", suffix="_again")


def test_changes_are_counted_and_scored(make_config: MakeConfig) -> None:
    config, engine = make_config(CHECKED), Unsteady()
    check = run(config, engine)["repeat_check"]
    both = passes(config)
    changed = int((both["prediction"] != both["prediction_again"]).sum())
    assert 0 < changed < 6
    assert (check["rows"], check["changed"], check["failed"]) == (6, changed, 0)
    assert check["changed_share"]["mean"] == pytest.approx(changed / 6, abs=1e-6)
    # "answer" is one of the answers of every row; "number" is half of "number 3", and no answer.
    moved = check["metrics"]["token_recall"]
    assert moved["mean_change"]["mean"] == pytest.approx(-0.5 * changed / 6, abs=1e-6)
    square = (1 + 0.25 * changed) / 7
    assert moved["mean_square"] == pytest.approx(square)
    assert moved["floor"] == pytest.approx(1.96 * (square / 10) ** 0.5, rel=1e-4)


class UnsteadyBehindTheFirst(Unsteady):
    """Gives two answers, of which the second may be another one when it is asked for alone."""

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for answer in super().stream(requests):
            said = (" same ", answer.text)
            samples = tuple(Sample(text, "stop", 1, seed) for seed, text in enumerate(said))
            yield replace(answer, text=said[0], samples=samples)


def test_every_answer_to_a_question_counts(make_config: MakeConfig) -> None:
    config = make_config(CHECKED, "generation.n=2", "generation.temperature=0.7")
    found = run(config, UnsteadyBehindTheFirst())["repeat_check"]
    both = passes(config)
    assert both["prediction"].equals(both["prediction_again"])
    second = pl.element().struct.field("prediction")
    said = both.select(pl.col("samples", "samples_again").list.eval(second).list.last())
    assert 0 < found["changed"] == (said["samples"] != said["samples_again"]).sum() < 6


def test_rows_are_asked_alone_and_computed_anew(make_config: MakeConfig) -> None:
    engine = Unsteady()
    run(make_config(CHECKED), engine)
    assert len(engine.alone) == len(set(engine.alone)) == 6
    assert engine.forgot == 1
    assert len(engine.asked) == 16


def test_an_interrupted_check_is_gone_on_with(make_config: MakeConfig) -> None:
    config = make_config(CHECKED)

    class Dying(Unsteady):
        def stream(
            self, requests: Iterable[GenerationRequest]
        ) -> Generator[Completion, None, None]:
            if len(self.alone) == 2:
                raise EngineDiedError("the engine died")
            yield from super().stream(requests)

    with pytest.raises(EngineDiedError):
        run(config, Dying())
    assert not (folder(config) / names.RESULTS).exists()
    engine = Unsteady()
    resumed = run(config, engine)["repeat_check"]
    assert len(engine.asked) == len(engine.alone) == 4
    whole = make_config(CHECKED, "experiment.name=whole")
    assert run(whole, Unsteady())["repeat_check"] == resumed
    assert run(config, FakeEngine())["repeat_check"] == resumed  # asks nothing


def test_a_finished_run_can_be_checked_later(make_config: MakeConfig) -> None:
    config, checked = make_config(), make_config(CHECKED)
    before = run(config, Unsteady())
    assert "repeat_check" not in before
    assert config_hash(config) == config_hash(checked)
    assert (_planned(config, False).status, _planned(checked, False).status) == ("done", "begun")
    engine = Unsteady()
    after = run(checked, engine)
    assert len(engine.asked) == 6
    assert after["metrics"] == before["metrics"]
    assert after["throughput"] == before["throughput"]


def test_rows_that_failed_are_not_asked_again(make_config: MakeConfig) -> None:
    config = make_config("experiment.repeat_check=100")
    check = run(config, Unsteady(fails=frozenset({3, 4})))["repeat_check"]
    assert check["rows"] + check["failed"] == 8


def test_overwrite_removes_what_was_asked_again(make_config: MakeConfig) -> None:
    config, engine = make_config(CHECKED), Unsteady()
    run(config, engine)
    evaluate([config], RunOptions(make_engine=engine.factory(), overwrite=True))
    lines = (folder(config) / names.REPEATED).read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 6

"""Runs that keep several answers to a question, or how probable each was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, EngineError
from slm_vllm.rundir import names
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.rundir.journal import JOURNAL_SCHEMA
from slm_vllm.rundir.predictions import predictions_schema
from slm_vllm.rundir.reading import load_run
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.scoring.calibration import calibration
from slm_vllm.types import Completion, GenerationRequest, Sample
from support.fake_engine import FakeEngine

MakeConfig = Callable[..., Config]
SEVERAL = ("generation.n=4", "generation.temperature=0.7")
SURE = ("generation.logprobs=true",)
WORDS = ("Answer", "the answer.", "wrong", "number", "<think>hm</think>answer")


class Sampling(FakeEngine):
    """Gives each prompt answers and probabilities by its length."""

    def __init__(self, n: int, **options: Any) -> None:
        super().__init__(**options)
        self._n = n

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for done in super().stream(requests):
            if done.error:
                yield done
                continue
            length = done.n_prompt_tokens
            texts = [WORDS[(length * (i + 1) + i) % len(WORDS)] for i in range(self._n)]
            samples = tuple(
                Sample(text, "stop", 2, seed=length + i, logprob=-20.0 * (length % 7) - i)
                for i, text in enumerate(texts)
            )
            yield Completion(
                done.request_id, texts[0], "stop", length, 2 * self._n, samples=samples
            )


def run(config: Config, engine: FakeEngine) -> dict[str, Any]:
    return evaluate([config], RunOptions(make_engine=engine.factory()))[0]


def folder(config: Config) -> Path:
    return config.experiment.folder


def exact_rows(config: Config) -> list[list[float]]:
    """Whether each answer to each question is right, from the texts in the file."""
    rows = pl.read_parquet(folder(config) / names.PREDICTIONS)["samples"].to_list()
    right = ("answer", "the answer.")
    return [[float(one["prediction"].lower() in right) for one in row or ()] for row in rows]


def exact(config: Config) -> np.ndarray:
    """The same, rows x answers."""
    return np.array(exact_rows(config))


def test_all_answers_are_kept_with_their_scores_and_seeds(make_config: MakeConfig) -> None:
    config = make_config(*SEVERAL)
    run(config, Sampling(4))
    frame = pl.read_parquet(folder(config) / names.PREDICTIONS)
    assert exact(config).mean(axis=1).tolist() == pytest.approx(frame["exact_match"].to_list())
    for row in frame.iter_rows(named=True):
        assert row["prediction"] == row["samples"][0]["prediction"]
        seeds = [one["seed"] for one in row["samples"]]
        assert seeds == list(range(row["n_prompt_tokens"], row["n_prompt_tokens"] + 4))
        assert row["n_completion_tokens"] == 8
        thought = [one for one in row["samples"] if one["completion"]]
        assert all(one["completion"] == "<think>hm</think>answer" for one in thought)
    listed = json.loads((folder(config) / names.PREDICTIONS_JSON).read_text())["predictions"]
    assert all(len(row["predicted_answers"]) == 4 for row in listed)


def test_the_figures_of_several_answers(make_config: MakeConfig) -> None:
    config = make_config(*SEVERAL)
    result = run(config, Sampling(4))
    right = exact(config)
    assert result["metrics"]["exact_match"]["mean"] == pytest.approx(right.mean(), abs=1e-6)
    found = result["sampling"]
    assert (found["answers"], found["questions"]) == (4, 10)
    within = right.var(axis=1, ddof=1).mean()
    between = right.mean(axis=1).var(ddof=1) - within / 4
    parts = found["variance"]["exact_match"]
    assert parts["within"] == pytest.approx(within, abs=1e-6)
    assert parts["between"] == pytest.approx(max(0, between), abs=1e-6)
    assert parts["stderr"] == pytest.approx(
        math.sqrt((max(0, between) + within / 4) / 10), abs=1e-6
    )
    chances = found["pass_at_k"]["exact_match"]
    assert list(chances) == ["1", "2", "3", "4"]
    assert chances["1"]["mean"] == pytest.approx(right.mean(), abs=1e-6)
    assert chances["4"]["mean"] == pytest.approx(right.max(axis=1).mean(), abs=1e-6)
    assert set(found["majority"]) == set(result["metrics"])
    assert 0.25 <= found["agreement"]["mean"] <= 1
    assert result["calibration"]["agreement"]["exact_match"]["n"] == 10


def test_confidence_is_that_of_the_answer_and_its_tokens(make_config: MakeConfig) -> None:
    config = make_config(*SURE)
    result = run(config, Sampling(1))
    rows = pl.read_parquet(folder(config) / names.PREDICTIONS)
    logprobs = np.array([row[0]["logprob"] for row in rows["samples"].to_list()])
    for kind, confidence in (
        ("answer probability", np.exp(logprobs)),
        ("token probability", np.exp(logprobs / 2)),
    ):
        expected = calibration(confidence, rows["contains"].to_numpy())
        assert expected is not None
        found = result["calibration"][kind]["contains"]
        for name in ("n", "accuracy", "confidence", "ece", "brier", "aurc"):
            assert found[name] == pytest.approx(getattr(expected, name), abs=1e-6)
        assert len(found["bins"]) == 10
        assert found["abstaining"][0]["coverage"] == 1
        least = found["abstaining"][0]["threshold"]
        assert least == pytest.approx(confidence.min(), rel=1e-5)
    assert "sampling" not in result


def test_of_several_answers_the_first_has_the_confidence(make_config: MakeConfig) -> None:
    config = make_config(*SEVERAL, *SURE)
    found = run(config, Sampling(4))["calibration"]["answer probability"]["exact_match"]
    rows = pl.read_parquet(folder(config) / names.PREDICTIONS)["samples"].to_list()
    logprobs, right = ([row[0][key] for row in rows] for key in ("logprob", "exact_match"))
    expected = calibration(np.exp(logprobs), np.array(right))
    assert expected is not None
    assert found["brier"] == pytest.approx(expected.brier, abs=1e-6)


def test_a_resumed_run_is_as_one_that_was_not(make_config: MakeConfig) -> None:
    config = make_config(*SEVERAL)
    whole = run(make_config(*SEVERAL, "experiment.name=whole"), Sampling(4))

    def stop(number: int) -> None:
        if number == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, Sampling(4, on_answer=stop))
    engine = Sampling(4)
    result = run(config, engine)
    assert len(engine.asked) == 4
    for key in ("metrics", "sampling", "calibration"):
        assert result[key] == whole[key]


def test_failed_rows_count_as_wrong_in_all_their_answers(make_config: MakeConfig) -> None:
    config = make_config(*SEVERAL)
    result = run(config, Sampling(4, fails=frozenset({2, 5})))
    assert result["counts"]["errors"] == 2
    metric, found = result["metrics"]["exact_match"], result["sampling"]
    right = np.vstack([*filter(len, exact_rows(config)), np.zeros((2, 4))])
    assert metric["n"] == found["questions"] == len(right) == 10
    assert found["pass_at_k"]["exact_match"]["1"]["mean"] == pytest.approx(metric["mean"])
    assert found["pass_at_k"]["exact_match"]["4"]["mean"] == right.max(axis=1).mean()
    assert found["variance"]["exact_match"]["stderr"] == pytest.approx(metric["stderr"], abs=1e-6)
    assert found["majority"]["exact_match"]["n"] == 10
    # Nobody knows how sure it would have been.
    assert found["agreement"]["n"] == result["calibration"]["agreement"]["exact_match"]["n"] == 8


def test_a_run_of_failures_has_no_figures(make_config: MakeConfig) -> None:
    config = make_config(*SEVERAL)
    with pytest.raises(EngineError, match="not one of 10"):
        run(config, Sampling(4, fails=frozenset(range(10))))
    result = json.loads((folder(config) / names.RESULTS).read_text())
    assert not {"sampling", "calibration"} & set(result)


def test_pass_at_k_is_told_up_to_10_and_of_all(make_config: MakeConfig) -> None:
    words = ("generation.temperature=0.7", "generation.n=12")
    chances = run(make_config(*words), Sampling(12))["sampling"]["pass_at_k"]["contains"]
    assert list(chances) == [*map(str, range(1, 11)), "12"]


def test_one_answer_leaves_everything_as_it_was(make_config: MakeConfig) -> None:
    config = make_config()
    result = run(config, FakeEngine())
    assert not {"sampling", "calibration"} & set(result)
    frame = pl.read_parquet(folder(config) / names.PREDICTIONS)
    assert frame.schema == predictions_schema()
    line = json.loads((folder(config) / names.JOURNAL).read_text().splitlines()[0])
    assert list(line) == list(JOURNAL_SCHEMA)


def test_several_answers_and_probabilities_are_another_run(make_config: MakeConfig) -> None:
    warm = "generation.temperature=0.7"
    hashes = {
        config_hash(make_config(*words))
        for words in ((), (warm,), (warm, "generation.n=2"), (warm, "generation.n=3"), SURE)
    }
    assert len(hashes) == 5


def test_runs_scored_by_another_version_are_scored_by_all_their_answers(
    make_config: MakeConfig,
) -> None:
    config = make_config(*SEVERAL)
    result = run(config, Sampling(4))
    path = folder(config) / names.RESULTS
    path.write_text(json.dumps({**json.loads(path.read_text()), "scoring_version": 1}))
    data = load_run(folder(config))
    assert data.results["metrics"] == result["metrics"]
    assert "rescored" in data.note


def test_what_cannot_be_had_together_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="greedy"):
        make_config("generation.n=2")
    with pytest.raises(ConfigError, match="answer_cache"):
        make_config(*SURE, "experiment.answer_cache=true")


def test_rows_asked_again_are_compared_by_all_their_answers(make_config: MakeConfig) -> None:
    config = make_config(*SEVERAL, "experiment.repeat_check=5")
    check = run(config, Sampling(4))["repeat_check"]
    assert (check["rows"], check["changed"]) == (5, 0)
    assert check["metrics"]["exact_match"]["mean_change"]["mean"] == 0

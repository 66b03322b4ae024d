"""Run folders of version 0.1.0 (see fixtures/version_0_1_0): gone on with, compared, reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from slm_vllm.cli.main import cli
from slm_vllm.config.schema import Config
from slm_vllm.engines.base import BaseEngine
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

FIXTURE = Path(__file__).parents[1] / "fixtures" / "version_0_1_0"
FINISHED, HALF = "finished_retriever", "half_oracle"


class Answering(BaseEngine):
    """Says the same to every question, and remembers which it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def start(self) -> EngineInfo:
        return EngineInfo("fake", 256)

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[Completion]:
        for request in requests:
            self.asked.append(request.request_id)
            yield Completion(request.request_id, " 1648 ", "stop", 1, 1)

    def close(self) -> None:
        pass


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of both runs; what they name lies where they say."""
    shutil.copytree(FIXTURE, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return Path("runs")


def go_on(run: Path, *, retry_errors: bool = False) -> tuple[dict[str, object], list[str]]:
    """Gives the command of a run again; its results and the questions it asked."""
    config = Config.model_validate(yaml.safe_load((run / "config.yaml").read_text("utf-8")))
    engine = Answering()
    options = RunOptions(make_engine=lambda settings: engine, retry_errors=retry_errors)
    return evaluate([config], options)[0], engine.asked


def command(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def keys(run: Path) -> list[str]:
    lines = (run / "predictions.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["key"] for line in lines]


def test_a_half_done_run_is_finished_and_no_answer_is_asked_for_again(runs: Path) -> None:
    before = (runs / HALF / "predictions.jsonl").read_bytes()
    results, asked = go_on(runs / HALF)
    assert (runs / HALF / "predictions.jsonl").read_bytes().startswith(before)
    assert len(asked) == 3 and not set(asked) & set(keys(FIXTURE / "runs" / HALF))
    assert results["counts"]["resumed"] == 5 and results["counts"]["total"] == 8  # type: ignore[index]


def test_a_finished_run_is_asked_nothing_more(runs: Path) -> None:
    results, asked = go_on(runs / FINISHED)
    assert asked == []
    assert results["counts"]["resumed"] == 8  # type: ignore[index]


def test_the_failed_answer_of_a_finished_run_is_asked_for_again(runs: Path) -> None:
    results, asked = go_on(runs / FINISHED, retry_errors=True)
    assert len(asked) == 1
    assert results["counts"]["errors"] == 0  # type: ignore[index]


def test_both_are_compared(runs: Path) -> None:
    go_on(runs / HALF)
    output = command("compare", FINISHED, HALF, "--output-dir", str(runs), "--json")
    found = json.loads(output)
    assert [run["name"] for run in found["datasets"][0]["runs"]] == [FINISHED, HALF]


def test_an_old_run_is_scored_anew_and_that_is_said(runs: Path) -> None:
    go_on(runs / HALF)
    assert json.loads((runs / HALF / "results.json").read_text("utf-8"))["scoring_version"] == 2
    output = command("compare", FINISHED, HALF, "--output-dir", str(runs))
    assert f"{FINISHED}: rescored" in output
    assert f"{HALF}: scored" not in output


def test_a_finished_run_is_reported(runs: Path) -> None:
    facts = json.loads(command("report", FINISHED, "--output-dir", str(runs), "--json"))
    assert facts["runs"] == [str(runs / FINISHED)]
    assert FINISHED in Path(facts["report"]).read_text("utf-8")


def test_both_are_listed_and_shown(runs: Path) -> None:
    listed = json.loads(command("runs", "list", "--output-dir", str(runs), "--json"))
    assert {run["name"]: run["phase"] for run in listed["runs"]} == {
        FINISHED: "finished",
        HALF: "interrupted",
    }
    assert "experiment_mode=oracle_context" in command("runs", "show", str(runs / HALF))

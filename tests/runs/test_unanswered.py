"""Runs whose engine answers nothing, or not in time."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from slm_vllm.config.schema import Config
from slm_vllm.errors import EngineError
from slm_vllm.reporting.table import results_table
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.runs.signals import Interrupted
from slm_vllm.types import Completion, GenerationRequest
from support.fake_engine import FakeEngine

MakeConfig = Callable[..., Config]
ALL = frozenset(range(10))


def run(config: Config, engine: FakeEngine, **options: Any) -> dict[str, Any]:
    return evaluate([config], RunOptions(make_engine=engine.factory(), **options))[0]


def read(config: Config, name: str) -> Any:
    folder = config.experiment.folder
    return json.loads((folder / name).read_text())


def test_not_one_answer_is_no_result(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(EngineError, match=r"not one of 10 .* refused.*--retry-errors") as error:
        run(config, FakeEngine(fails=ALL))
    assert error.value.exit_code == 4
    result = read(config, "results.json")
    assert result["token_recall"] is None
    assert {metric["mean"] for metric in result["metrics"].values()} == {None}
    counts = result["counts"]
    assert (counts["total"], counts["errors"], counts["scored"]) == (10, 10, 0)
    assert read(config, "predictions.json")["statistics"]["num_scored"] == 0
    state = read(config, "state.json")
    assert (state["phase"], state["exit_code"]) == ("failed", 4)


class SaysNothing(FakeEngine):
    """Fails the first prompt, and gives nothing, blanks and a cut-off thought in turn."""

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for number, answer in enumerate(super().stream(requests)):
            text = ["", " \n", "<think>hm"][number % 3]
            yield answer if answer.error else replace(answer, text=text)


def test_answers_that_say_nothing_are_counted(make_config: MakeConfig) -> None:
    result = run(make_config(), SaysNothing(fails=frozenset({0})))
    counts = result["counts"]
    assert (counts["total"], counts["errors"], counts["unterminated_thinking"]) == (10, 1, 3)
    assert counts["empty"] == 6
    assert "6 answered with nothing" in results_table([result])
    assert "answered with nothing" not in results_table(
        [run(make_config("experiment.name=b"), FakeEngine())]
    )


def test_what_was_not_answered_can_be_asked_again(make_config: MakeConfig) -> None:
    config, nobody = make_config(), FakeEngine()
    with pytest.raises(EngineError):
        run(config, FakeEngine(fails=ALL))
    with pytest.raises(EngineError, match="not one of 10"):
        run(config, nobody)  # its rows are known to have failed
    assert not nobody.asked
    assert run(config, FakeEngine(), retry_errors=True)["counts"]["errors"] == 0
    assert read(config, "state.json")["phase"] == "finished"


def test_one_answer_makes_a_figure_in_which_failures_count_as_wrong(
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    result = run(config, FakeEngine(fails=ALL - {3}))
    assert result["counts"]["scored"] == 10
    assert result["token_recall"] == pytest.approx(0.1)
    said = (
        "9 of 10 questions failed and count as wrong. The last one said: refused. The same "
        "command with --retry-errors asks them again"
    )
    log = config.experiment.folder / "experiment.log"
    assert said in capsys.readouterr().err and said in log.read_text()
    run(config, FakeEngine())
    assert "9 of 10 questions failed and count as wrong. The same" in capsys.readouterr().err
    run(config, FakeEngine(), retry_errors=True)
    assert "failed" not in capsys.readouterr().err


def test_the_other_cells_of_a_sweep_go_on(make_config: MakeConfig) -> None:
    configs = [make_config(f"experiment.name={name}") for name in ("first", "second")]
    engine = FakeEngine(fails=ALL)
    options = RunOptions(keep_going=True, make_engine=engine.factory())
    first, second = evaluate(configs, options)
    assert first["exit_code"] == second["exit_code"] == 4
    assert len(engine.asked) == 20


class SilentEngine(FakeEngine):
    """Answers three questions, then only when it is told to wind down."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for number, completion in enumerate(super().stream(requests)):
            if number == 3:
                threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
                assert self.told.wait(60), "nobody told it to wind down"
                return
            yield completion

    def wind_down(self) -> None:
        self.told.set()


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_reaches_an_engine_that_does_not_answer(
    make_config: MakeConfig, default_sigterm: None
) -> None:
    config = make_config()
    with pytest.raises(Interrupted) as stopped:
        run(config, SilentEngine(), own_process=True)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    rest = FakeEngine()
    assert run(config, rest)["counts"]["errors"] == 0
    assert len(rest.asked) == 7


def test_running_recall_is_not_shown_for_failures(
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineError):
        run(make_config(), FakeEngine(fails=ALL))
    said = capsys.readouterr().err
    assert "10 errors" in said and "token recall" not in said and "nothing scored" not in said


def test_predictions_are_written_all_the_same(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(EngineError):
        run(config, FakeEngine(fails=ALL))
    folder = config.experiment.folder
    assert pl.read_parquet(folder / "predictions.parquet")["error"].to_list() == ["refused"] * 10


class Careless(FakeEngine):
    """Leaves one question out, or answers one twice."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self._twice = twice

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for number, completion in enumerate(super().stream(requests)):
            for _ in range((0, 2)[self._twice] if number == 3 else 1):
                yield completion


def test_an_engine_that_leaves_a_question_out_makes_no_figures(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(EngineError, match="without an answer to 1 of 10 questions"):
        run(config, Careless(twice=False))
    assert read(config, "state.json")["phase"] == "failed"
    rest = FakeEngine()
    assert run(config, rest)["counts"]["total"] == 10
    assert len(rest.asked) == 1


def test_an_engine_that_answers_twice_is_told_what_is_wrong(make_config: MakeConfig) -> None:
    with pytest.raises(EngineError, match="Each request is answered once"):
        run(make_config(), Careless(twice=True))

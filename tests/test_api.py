"""The package as a library: another thread, the caller's own output and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import slm_vllm
from slm_vllm import SlmVllmError, compare_runs, evaluate, load_run, open_dataset, score_answers
from support.fake_engine import FakeEngine
from support.qa_files import write_rows


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        {"question": f"question {n}?", "answer": f"answer {n}", "context": f"page {n}"}
        for n in range(6)
    ]
    return write_rows(tmp_path / "qa.jsonl", [dict(row) for row in rows])


def arguments(tiny_model: Path, questions: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_model),
        "dataset": questions,
        "output_dir": tmp_path / "runs",
        "overrides": ["hardware=cpu", f"cache_dir={tmp_path / 'cache'}"],
    }


def in_a_thread(work: Any) -> Any:
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def test_a_thread_can_evaluate_and_nothing_of_the_process_is_taken(
    tiny_model: Path, questions: Path, tmp_path: Path
) -> None:
    places, handlers = [], []

    def look(number: int) -> None:
        places.append([os.fstat(descriptor).st_ino for descriptor in (1, 2)])
        handlers.append(signal.getsignal(signal.SIGTERM))

    engine = FakeEngine(on_answer=look)
    before = [os.fstat(descriptor).st_ino for descriptor in (1, 2)]
    (run,) = in_a_thread(
        lambda: evaluate(engine=engine.factory(), **arguments(tiny_model, questions, tmp_path))
    )
    assert run.predictions.height == 6 and run.results["counts"]["total"] == 6
    assert places == [before] * 6
    assert set(handlers) == {signal.getsignal(signal.SIGTERM)}
    assert (engine.starts, engine.closes) == (1, 1)


@pytest.mark.slow
def test_the_log_is_kept_without_the_descriptors(
    tiny_model: Path, questions: Path, tmp_path: Path
) -> None:
    engine = FakeEngine(dies_after=2, deaths=1)
    (run,) = evaluate(engine=engine.factory(), **arguments(tiny_model, questions, tmp_path))
    assert "the engine died" in (run.path / "experiment.log").read_text()
    assert run.results["counts"]["total"] == 6


def test_several_modes_one_engine_and_a_comparison(
    tiny_model: Path, questions: Path, tmp_path: Path
) -> None:
    engine = FakeEngine()
    runs = evaluate(
        mode="no_context,oracle",
        engine=engine.factory(),
        **arguments(tiny_model, questions, tmp_path),
    )
    assert [run.results["mode"] for run in runs] == ["no_context", "oracle"]
    assert engine.starts == 1
    comparison = compare_runs([runs[0], runs[1].path])
    assert comparison.datasets[0].baseline == runs[0].name
    assert load_run(runs[0].path).results == runs[0].results


def test_a_run_that_is_there_is_read_not_asked_again(
    tiny_model: Path, questions: Path, tmp_path: Path
) -> None:
    given = arguments(tiny_model, questions, tmp_path)
    (first,) = evaluate(engine=FakeEngine().factory(), **given)
    again = FakeEngine()
    (second,) = evaluate(engine=again.factory(), **given)
    assert again.starts == 0
    assert second.results["metrics"] == first.results["metrics"]


def test_an_error_is_an_exception_with_the_message_of_the_command_line(
    tiny_model: Path, tmp_path: Path
) -> None:
    given = arguments(tiny_model, tmp_path / "nowhere.jsonl", tmp_path)
    with pytest.raises(SlmVllmError, match="nowhere.jsonl"):
        evaluate(engine=FakeEngine().factory(), **given)


def test_an_interrupted_cell_of_a_notebook_is_marked_and_gone_on_with(
    tiny_model: Path, questions: Path, tmp_path: Path
) -> None:
    def interrupt(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    given = arguments(tiny_model, questions, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(engine=FakeEngine(on_answer=interrupt).factory(), **given)
    rest = FakeEngine()
    (run,) = evaluate(engine=rest.factory(), **given)
    assert len(rest.asked) == 3 and run.results["counts"]["resumed"] == 3


def test_a_dataset_and_scores_without_a_run(questions: Path) -> None:
    frame = next(iter(open_dataset(questions).scan()))
    assert frame["question"].len() == 6
    answered = frame.select("answers").with_columns(prediction=pl.lit("answer 3"))
    scored = score_answers(answered)
    assert scored["exact_match"].to_list() == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]


def test_a_run_is_shown_in_one_line(tiny_model: Path, questions: Path, tmp_path: Path) -> None:
    given = arguments(tiny_model, questions, tmp_path)
    (run,) = evaluate(engine=FakeEngine().factory(), **given)
    assert repr(run) == f"<RunData {run.name}: 6 questions, token recall 0.500, {run.path}>"


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: compare_runs([]), "there is no run"),
        (lambda: load_run("nowhere"), "nowhere: there is no such folder"),
        (lambda: compare_runs("nowhere"), "nowhere: there is no such folder"),
        (lambda: score_answers({"prediction": ["a"]}), "not a dict"),
        (lambda: score_answers(pl.DataFrame({"answers": [["a"]]})), "prediction is missing"),
        (
            lambda: score_answers(pl.DataFrame({"prediction": ["a"], "answers": ["a"]})),
            r"answers has the type String; it has to be List\(String\)",
        ),
    ],
)
def test_a_mistake_of_the_caller_is_named(work: Any, message: str) -> None:
    with pytest.raises(SlmVllmError, match=message):
        work()


def test_every_public_name_is_there() -> None:
    for name in slm_vllm.__all__:
        assert getattr(slm_vllm, name) is not None
    with pytest.raises(AttributeError, match="evaluat'"):
        slm_vllm.evaluat  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("polars", "numpy", "vllm", "torch", "transformers", "clearml", "hydra", "pydantic")
    code = f"import sys, slm_vllm; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_the_same_mode_twice_is_refused(tiny_model: Path, questions: Path, tmp_path: Path) -> None:
    with pytest.raises(SlmVllmError, match="the same mode twice"):
        evaluate(**arguments(tiny_model, questions, tmp_path), mode=["oracle", "oracle"])

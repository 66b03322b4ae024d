"""What the prompts of a run hold beside its configuration: the day, an opened thinking block."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, EngineDiedError
from slm_vllm.reporting.config_diff import config_differences
from slm_vllm.rundir.reading import load_run
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from slm_vllm.types import Completion, GenerationRequest
from support.fake_engine import FakeEngine

MakeConfig = Callable[..., Config]
TURNS = "{% for m in messages %} {{ m.content }} {% endfor %}"
DATED = "{{ strftime_now('%B') }}" + TURNS
MONTHS = {"January": 2, "February": 3}


@pytest.fixture
def use_template(
    tiny_model: Path, tmp_path: Path, make_config: MakeConfig
) -> Callable[..., Config]:
    """Composes runs of the tiny model with another chat template."""

    def make(template: str, *words: str) -> Config:
        folder = tmp_path / f"model{abs(hash(template))}"
        if not folder.exists():
            shutil.copytree(tiny_model, folder)
            tokenizer = json.loads((folder / "tokenizer.json").read_text())
            tokenizer["model"]["vocab"] |= MONTHS
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
            settings = json.loads((folder / "tokenizer_config.json").read_text())
            (folder / "tokenizer_config.json").write_text(
                json.dumps(settings | {"chat_template": template})
            )
        return make_config(f"model.path={folder}", "prompt.system=null", *words)

    return make


def run(config: Config, engine: FakeEngine, month: int = 1, **options: Any) -> dict[str, Any]:
    """Runs it as if the command began in that month."""
    today = date(2026, month, 15)
    return evaluate([config], RunOptions(make_engine=engine.factory(), today=today, **options))[0]


def folder(config: Config) -> Path:
    return config.experiment.folder


def manifest(config: Config) -> dict[str, Any]:
    return dict(json.loads((folder(config) / "manifest.json").read_text()))


def months(engine: FakeEngine) -> set[int]:
    return {request.prompt_token_ids[0] for request in engine.asked}


def test_a_run_that_goes_on_keeps_its_day(use_template: Callable[..., Config]) -> None:
    config = use_template(DATED)
    first, second = FakeEngine(dies_after=4), FakeEngine()
    with pytest.raises(EngineDiedError):
        run(config, first)
    result = run(config, second, month=2)
    assert months(first) == months(second) == {MONTHS["January"]}
    assert len(second.asked) == 2 and result["counts"]["resumed"] == 8
    assert manifest(config)["prompt_date"] == "2026-01-15"


def test_another_run_has_the_day_it_began(use_template: Callable[..., Config]) -> None:
    runs = [use_template(DATED, f"experiment.name={name}") for name in ("a", "b", "c")]
    runs[2] = use_template(DATED, "experiment.name=c", "prompt.date=2026-01-15")
    engines = [FakeEngine() for _ in runs]
    for month, config, engine in zip((1, 2, 2), runs, engines, strict=True):
        run(config, engine, month)
    assert [months(engine).pop() for engine in engines] == [2, 3, 2]
    hashes = [manifest(config)["prompt_hash"] for config in runs]
    assert hashes[0] == hashes[2] != hashes[1]
    loaded = [load_run(folder(config)) for config in runs]
    (difference,) = [d for d in config_differences(loaded) if d.key.startswith("prompt")]
    assert difference.key == "prompt.date"
    assert difference.values == (("2026-01-15", (0, 2)), ("2026-02-15", (1,)))


def test_overwritten_answers_leave_no_day_behind(use_template: Callable[..., Config]) -> None:
    config, engine = use_template(DATED), FakeEngine()
    run(config, FakeEngine())
    run(config, engine, month=2, overwrite=True)
    assert months(engine) == {MONTHS["February"]}


def test_another_day_under_the_same_name_is_refused(use_template: Callable[..., Config]) -> None:
    run(use_template(DATED), FakeEngine())
    with pytest.raises(ConfigError, match="prompt.date=2026-02-01.*2026-01-15.*--name"):
        run(use_template(DATED, "prompt.date=2026-02-01"), FakeEngine())
    again = FakeEngine()
    run(use_template(DATED, "prompt.date=2026-01-15"), again)
    assert not again.asked


def test_a_template_without_a_day_is_always_the_same(
    use_template: Callable[..., Config],
) -> None:
    config, again = use_template(TURNS), FakeEngine()
    run(config, FakeEngine())
    before = manifest(config)
    run(use_template(TURNS, "prompt.date=2026-02-01"), again, month=2)
    assert not again.asked and "prompt_date" not in manifest(config)
    assert manifest(config)["prompt_hash"] == before["prompt_hash"]


class Saying(FakeEngine):
    """Gives the same completion to every prompt."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def stream(self, requests: Iterable[GenerationRequest]) -> Generator[Completion, None, None]:
        for request in requests:
            self.asked.append(request)
            yield Completion(request.request_id, self.text, "length", 9, 9)


@pytest.mark.parametrize(
    ("end", "said", "prediction", "unterminated"),
    [
        ("<think>\n", "the answer may be", "", 10),
        ("<think>\n", "hm</think> the answer", "the answer", 0),
        ("[THINK]", "the answer may be", "", 10),
        ("", "the answer", "the answer", 0),
    ],
)
def test_an_answer_cut_while_thinking_is_none(
    use_template: Callable[..., Config], end: str, said: str, prediction: str, unterminated: int
) -> None:
    config = use_template(TURNS + end)
    result = run(config, Saying(said))
    assert result["counts"]["unterminated_thinking"] == unterminated
    frame = pl.read_parquet(folder(config) / "predictions.parquet")
    assert set(frame["prediction"]) == {prediction}
    assert (result["token_recall"] == 0) == (not prediction)


def test_an_answer_told_apart_from_its_thought_needs_no_end_of_the_block(
    use_template: Callable[..., Config],
) -> None:
    class Apart(FakeEngine):
        def stream(
            self, requests: Iterable[GenerationRequest]
        ) -> Generator[Completion, None, None]:
            for number, request in enumerate(requests):
                whole = bool(number % 2)
                yield Completion(request.request_id, "answer", "stop", 1, 1, is_whole=whole)

    config = use_template(TURNS + "<think>")
    evaluate([config], RunOptions(make_engine=Apart().factory()))
    frame = pl.read_parquet(folder(config) / "predictions.parquet")
    assert frame["prediction"].to_list() == ["", "answer"] * 5
    assert frame["unterminated_thinking"].to_list() == [True, False] * 5

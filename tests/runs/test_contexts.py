"""Modes: what a name has to be, and what a new one takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from slm_vllm.config.compose import compose_config
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.plugins import PluginError
from slm_vllm.rundir import names
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.rundir.remarks import without_context
from slm_vllm.runs.choices import check_choices
from slm_vllm.runs.command_plan import plan_command
from slm_vllm.runs.contexts import check_gold
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from support.fake_engine import FakeEngine
from support.qa_files import write_rows

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("experiment_mode.context=orakel", "Did you mean 'oracle'"),
        ("dataset.kind=qa_pair", "Did you mean 'qa_pairs'"),
        ("retriever.kind=bm52", "Did you mean 'bm25'"),
        ("retriever.options={k9: 1}", "k9"),
        ("engine.name=vlmm", "Did you mean 'vllm'"),
        ("tracking.tracker=clearmi", "Did you mean 'clearml'"),
        (["dataset.kind=nq", "dataset.options={colums: 1}"], "no option 'colums'. Did you mean"),
    ],
)
def test_a_name_that_nothing_has_is_refused_with_the_nearest(
    make_config: MakeConfig, word: str | list[str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_choices(make_config(*([word] if isinstance(word, str) else word)))


def test_it_is_refused_before_a_folder_is_made(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("experiment_mode.context=orakel")
    with pytest.raises(ConfigError, match="oracle"):
        evaluate([config], RunOptions(make_engine=FakeEngine().factory()))
    assert not (tmp_path / "outputs").exists()


def test_of_a_context_that_is_cut_only_what_the_model_saw_is_kept(
    make_config: MakeConfig, rows: list[dict[str, object]]
) -> None:
    long = "It is long. " * 40 + "The answer is at the end."
    config = make_config("experiment_mode=oracle", "model.max_model_len=128")
    write_rows(Path(config.dataset.path), [{**row, "contexts": [long]} for row in rows])
    (result,) = evaluate([config], RunOptions(make_engine=FakeEngine().factory()))
    assert result["counts"]["truncated"] == 10
    found = pl.read_parquet(config.experiment.folder / names.PREDICTIONS)["contexts"]
    texts = [context["text"] for contexts in found for context in contexts]
    assert len(texts) == 10
    assert all(long.startswith(text) and 0 < len(text) < len(long) for text in texts)


def test_an_oracle_without_any_gold_context_is_refused(
    make_config: MakeConfig, rows: list[dict[str, object]]
) -> None:
    closed, oracle = (
        make_config(f"experiment_mode={mode}", f"experiment.name={mode}")
        for mode in ("no_context", "oracle")
    )
    bare = [{**row, "contexts": []} for row in rows]
    write_rows(Path(closed.dataset.path), bare)
    engine = FakeEngine()
    options = RunOptions(make_engine=engine.factory(), keep_going=True)
    finished, failed = evaluate([closed, oracle], options)
    assert "none of the 10 rows has a context" in failed["error"] and failed["exit_code"] == 3
    assert finished["counts"]["total"] == len(engine.asked) == 10
    with pytest.raises(DataError, match="none of the 10 rows has a context.*columns.contexts"):
        plan_command([closed, oracle])
    write_rows(Path(closed.dataset.path), [*bare[:9], rows[9]])
    (some,) = evaluate([oracle], options)
    assert without_context(some) == some["counts"]["without_passage"] == 9
    (closed_book,) = evaluate([closed], options)
    assert without_context(closed_book) == 0
    assert plan_command([closed, oracle]).runs[1].refused == ""


FIRST = """
from slm_vllm.runs.contexts import Context, RowContext
from slm_vllm.types import Passage, RetrievedPassage


class FirstDocument(Context):
    name = "first_document"
    uses_gold = True

    def rows(self, frame):
        return [
            RowContext([RetrievedPassage(Passage(f"{name}#1", name, "", contexts[0]), 1.0, 1)])
            for name, contexts in frame.select("question_id", "contexts").iter_rows()
        ]
"""


def test_a_new_mode_is_one_class_and_one_file(
    make_config: MakeConfig, tmp_path: Path, plugin: Callable[[str, str], Path]
) -> None:
    plugin("first", FIRST)
    folder = tmp_path / "configs" / "experiment_mode"
    folder.mkdir()
    (folder / "first.yaml").write_text("name: first\ncontext: first:FirstDocument\n")
    base = make_config()
    words = [
        "model=custom",
        "model.name=tiny",
        f"model.path={base.model.path}",
        "dataset=custom",
        "dataset.name=qa",
        f"dataset.path={base.dataset.path}",
        f"experiment.output_dir={base.experiment.output_dir}",
        f"cache_dir={base.cache_dir}",
        "hardware=cpu",
        "tracking.tracker=none",
        "experiment_mode=first",
    ]
    config = compose_config(words, tmp_path / "configs")
    result = evaluate([config], RunOptions(make_engine=FakeEngine().factory()))[0]
    assert (result["mode"], result["retriever"]) == ("first", None)
    frame = pl.read_parquet(tmp_path / "outputs" / "tiny_qa_first" / "predictions.parquet")
    shown = [row[0]["text"] for row in frame["contexts"].to_list()]
    assert shown == [f"context {i}" for i in range(10)]
    assert set(frame["context_type"]) == {"first_document"}


def test_a_mode_of_its_own_may_show_something_else_of_a_row(
    make_config: MakeConfig, plugin: Callable[[str, str], Path]
) -> None:
    plugin("first", FIRST)
    check_gold(make_config("experiment_mode.context=first:FirstDocument"), 10, 0)
    with pytest.raises(DataError):
        check_gold(make_config("experiment_mode=oracle"), 10, 0)
    check_gold(make_config("experiment_mode=oracle"), 10, 1)


def test_a_mode_that_fails_is_told_in_a_line_and_ends_its_cell_alone(
    make_config: MakeConfig, tmp_path: Path, plugin: Callable[[str, str], Path]
) -> None:
    path = plugin("first", FIRST.replace("contexts[0]", "contexts[5]"))
    failing = make_config("experiment_mode.context=first:FirstDocument", "experiment.name=failing")
    configs = [failing, make_config()]
    options = RunOptions(keep_going=True, make_engine=FakeEngine().factory())
    failed, finished = evaluate(configs, options)
    assert re.fullmatch(
        rf"{re.escape(str(path))}, line \d+, in \S+: IndexError: list index out of range",
        failed["error"],
    )
    assert failed["exit_code"] == 2 and finished["num_examples"] == 10
    log = (tmp_path / "outputs" / "failing" / names.LOG).read_text()
    assert "Traceback" in log and "contexts[5]" in log
    with pytest.raises(PluginError, match="list index out of range"):
        evaluate(configs[:1], RunOptions(make_engine=FakeEngine().factory()))


def test_a_mode_that_searches_nothing_keeps_its_answers_when_the_retriever_changes(
    make_config: MakeConfig,
) -> None:
    for mode, same in (("no_context", True), ("oracle", True), ("retriever", False)):
        one, two = (make_config(f"experiment_mode={mode}", f"retriever.top_k={k}") for k in (1, 2))
        assert (config_hash(one) == config_hash(two)) is same

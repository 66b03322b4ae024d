"""Files of public datasets go through whole runs, in oracle and in retriever mode."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slm_vllm.cli.index import index as index_command
from slm_vllm.config.schema import Config
from slm_vllm.retrieval.corpus import DatasetCorpus
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from support.fake_engine import FakeEngine
from support.public_layouts import LAYOUTS, MOMO, OTHER, QUESTIONS, VIENNA, PublicLayout

MakeConfig = Callable[..., Config]


def run(
    make_config: MakeConfig, path: Path, mode: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs one mode over a file and gives results and predictions."""
    config = make_config(
        f"dataset.path={path}", f"experiment_mode={mode}", f"experiment.name={mode}"
    )
    options = RunOptions(make_engine=FakeEngine().factory(), own_process=True)
    results = evaluate([config], options)[0]
    folder = config.experiment.folder
    predictions = json.loads((folder / "predictions.json").read_text("utf-8"))["predictions"]
    return results, predictions


def made(layout: PublicLayout, folder: Path) -> Path:
    layout.write(folder / layout.name)
    return folder / layout.name


@pytest.mark.parametrize("name", [name for name in LAYOUTS if LAYOUTS[name].contexts])
def test_oracle_mode_shows_the_gold_contexts(
    name: str, tmp_path: Path, make_config: MakeConfig
) -> None:
    layout = LAYOUTS[name]
    results, predictions = run(make_config, made(layout, tmp_path), "oracle_context")
    assert [row["question"] for row in predictions] == QUESTIONS
    assert [row["ground_truth"] for row in predictions] == list(layout.answers)
    assert [row["contexts"] for row in predictions] == list(layout.contexts or ())
    counts = results["counts"]
    unscored = 0 if any(layout.answers) else 2
    assert (counts["total"], counts["unscored"], counts["rejected"]) == (2, unscored, 0)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if LAYOUTS[name].titles])
def test_retriever_mode_searches_the_documents(
    name: str, tmp_path: Path, make_config: MakeConfig
) -> None:
    _, predictions = run(make_config, made(LAYOUTS[name], tmp_path), "retriever_context")
    found = [text for row in predictions for text in row["contexts"]]
    assert found and set(found) <= {VIENNA, MOMO, OTHER}


def test_a_run_finds_the_passages_that_index_build_made(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(LAYOUTS["MuSiQue"], tmp_path)
    words = ["--dataset", str(path), "--cache-dir", str(tmp_path / "cache")]
    built = CliRunner().invoke(index_command, ["build", *words], catch_exceptions=False)
    assert built.exit_code == 0

    def read_again(corpus: DatasetCorpus) -> None:
        raise AssertionError("the corpus is read again")

    monkeypatch.setattr(DatasetCorpus, "documents", read_again)
    _, predictions = run(make_config, path, "retriever_context")
    assert all(row["contexts"] for row in predictions)
    # Another name for the same file is the same corpus.
    _, predictions = run(partial(make_config, "dataset.name=other"), path, "retriever_context")
    assert all(row["contexts"] for row in predictions)

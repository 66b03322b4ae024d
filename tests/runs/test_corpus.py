"""Runs whose searches go through a corpus of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slm_vllm.cli.index import index as index_command
from slm_vllm.config.schema import Config
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.rundir.fingerprint import config_hash
from slm_vllm.runs.options import RunOptions
from slm_vllm.runs.session import evaluate
from support.fake_engine import FakeEngine

MakeConfig = Callable[..., Config]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A document for each question, of other ids than the dataset's, and others."""
    path = tmp_path / "corpus.jsonl"
    rows = [{"_id": f"c{i}", "title": "", "text": "very " * i + f"number {i}"} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    results = evaluate([config], RunOptions(make_engine=FakeEngine().factory(), own_process=True))
    folder = config.experiment.folder
    predictions = json.loads((folder / "predictions.json").read_text("utf-8"))["predictions"]
    return results[0], predictions


def test_the_corpus_is_searched_and_judged_by_its_qrels(
    make_config: MakeConfig, corpus: Path, tmp_path: Path
) -> None:
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("q9 0 c9 2\nq9 0 c8 1\nq1 0 nowhere 1\n")
    config = make_config(
        "experiment_mode=retriever", f"corpus.path={corpus}", f"corpus.qrels={qrels}"
    )
    results, predictions = run(config)
    texts = {text for row in predictions for text in row["contexts"]}
    assert texts and all("number" in text for text in texts)
    # Two questions are judged, and one of their documents is found first.
    found = results["retrieval"]["document_hit@1"]
    assert (found["mean"], found["n"]) == (0.5, 2)
    assert results["retrieval"]["answer_hit@10"]["n"] == 10


def test_what_a_corpus_leaves_out_is_said(
    make_config: MakeConfig, corpus: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with corpus.open("a") as file:
        file.write('{"_id": "none"}\nnot json\n')
    config = make_config("experiment_mode=retriever", f"corpus.path={corpus}")
    run(config)
    said = f"{corpus}: 2 rows without a document left out (first: {corpus}, line "
    assert said in capfd.readouterr().err
    log = config.experiment.folder / "experiment.log"
    assert log.read_text().count("without a document left out") == 1


def test_without_qrels_answers_alone_judge_the_search(
    make_config: MakeConfig, corpus: Path
) -> None:
    results, _ = run(make_config("experiment_mode=retriever", f"corpus.path={corpus}"))
    assert results["retrieval"]["answer_mrr"]["n"] == 10
    assert not any(name.startswith("document") for name in results["retrieval"])


def test_documents_of_the_dataset_may_be_those_of_the_corpus(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    path = tmp_path / "corpus.tsv"
    rows = [f"d{i}\tquestion {'very ' * i}long\n" for i in range(10)]
    path.write_text("id\ttext\n" + "".join(rows))
    words = ("experiment_mode=retriever", f"corpus.path={path}", "corpus.qrels=dataset")
    results, _ = run(make_config(*words))
    assert results["retrieval"]["document_hit@10"]["mean"] == 1.0


def test_only_runs_that_search_depend_on_it(make_config: MakeConfig, corpus: Path) -> None:
    for mode, same in (("no_context", True), ("oracle", True), ("retriever", False)):
        words = (f"experiment_mode={mode}",)
        without, with_one = make_config(*words), make_config(*words, f"corpus.path={corpus}")
        assert (config_hash(without) == config_hash(with_one)) is same
        named = make_config(*words, f"corpus.path={corpus}", "corpus.name=other")
        assert config_hash(named) == config_hash(with_one)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("corpus.path=missing.jsonl", "missing.jsonl"),
        ("corpus.qrels=missing.txt", "missing.txt"),
        ("corpus.columns={text: body}", "no column 'body'"),
    ],
)
def test_a_bad_corpus_is_known_before_the_engine_starts(
    make_config: MakeConfig, corpus: Path, word: str, said: str
) -> None:
    engine = FakeEngine()
    config = make_config("experiment_mode=retriever", f"corpus.path={corpus}", word)
    with pytest.raises(DataError, match=said):
        evaluate([config], RunOptions(make_engine=engine.factory()))
    assert not engine.asked


def test_a_corpus_without_a_path_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="path"):
        make_config("corpus=custom")


def test_index_commands_take_it(corpus: Path, tmp_path: Path) -> None:
    words = ["--corpus", str(corpus), "--cache-dir", str(tmp_path / "cache"), "--json"]
    found = CliRunner().invoke(index_command, ["search", "number 7", *words])
    assert [p["document_id"] for p in json.loads(found.stdout)["passages"]][:1] == ["c7"]

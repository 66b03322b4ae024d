"""Files of public datasets are read without a mapping: every field of them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from slm_vllm.cli.data import data
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.types import RejectedRow
from support.public_layouts import LAYOUTS, OTHER, QUESTIONS, write_beir


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_field_is_read(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    path = tmp_path / layout.name
    layout.write(path)
    rejected: list[RejectedRow] = []
    dataset = open_dataset(None, path, on_reject=rejected.append)
    rows = pl.concat(dataset.scan()).to_dicts()
    assert not rejected and not dataset.notices
    assert [row["question"] for row in rows] == QUESTIONS
    assert [row["answers"] for row in rows] == list(layout.answers)
    if layout.ids is not None:
        assert [row["question_id"] for row in rows] == layout.ids
    assert [row["contexts"] for row in rows] == list(layout.contexts or ([], []))
    titles = [[document["title"] for document in row["documents"]] for row in rows]
    assert titles == list(layout.titles or ([], []))
    for row in rows:
        texts = [document["text"] for document in row["documents"]]
        assert all(any(text in context for text in texts) for context in row["contexts"] if texts)


@pytest.mark.parametrize("name", LAYOUTS)
def test_without_documents_the_rest_is_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / LAYOUTS[name].name
    LAYOUTS[name].write(path)
    full = pl.concat(open_dataset(None, path).scan())
    lean = pl.concat(open_dataset(None, path).scan(with_documents=False))
    assert lean.drop("documents").equals(full.drop("documents"))
    assert lean["documents"].list.len().sum() == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_data_check_counts_what_is_there(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.write(tmp_path / layout.name)
    result = CliRunner().invoke(data, ["check", str(tmp_path / layout.name), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    figures = [report[key] for key in ("rows", "rejected", "duplicates", "empty_answers")]
    assert figures == [2, 0, 0, 2 if layout.answers == ([], []) else 0]
    assert report["without_contexts"] == (0 if layout.contexts else 2)
    assert report["without_documents"] == (0 if layout.titles else 2)


def test_a_beir_corpus_is_searched_whole(tmp_path: Path) -> None:
    write_beir(tmp_path / "beir")
    dataset = open_dataset(None, tmp_path / "beir")
    corpus = pl.concat(dataset.corpus())
    assert corpus["document_id"].to_list() == ["d1", "d2", "d3"]
    assert corpus["text"][0] == OTHER
    (frame,) = dataset.scan()
    assert [d["document_id"] for row in frame["documents"].to_list() for d in row] == ["d2", "d3"]


def test_unanswerable_questions_of_squad_2_are_kept_and_unscored(tmp_path: Path) -> None:
    asked = {"id": "x", "question": "Who?", "answers": [], "is_impossible": True}
    asked["plausible_answers"] = [{"text": "nobody", "answer_start": 0}]
    article = {"title": "T", "paragraphs": [{"context": "c", "qas": [asked]}]}
    (tmp_path / "dev-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": [article]}))
    (frame,) = open_dataset(None, tmp_path / "dev-v2.0.json").scan()
    assert frame.select("question_id", "answers").rows() == [("x", [])]

"""Run files of trec_eval's form: what is written is read as it was, by us and by trec_eval."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.cli.index import index as index_command
from slm_vllm.errors import ConfigError, DataError, StorageError
from slm_vllm.retrieval.trec_run import RunWriter, read_run, written_run
from slm_vllm.types import Passage, RetrievedPassage
from support.corpora import Opener

SCORES = st.lists(
    st.floats(-1024, 1024, width=32, allow_subnormal=False) | st.sampled_from([0.0, 1.0]),
    min_size=1,
    max_size=6,
)


def ranked(scores: list[float]) -> list[RetrievedPassage]:
    best_first = sorted(scores, reverse=True)
    return [
        RetrievedPassage(Passage(f"d{i}:0", f"d{i}", "", "text"), score, i)
        for i, score in enumerate(best_first)
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(SCORES, min_size=1, max_size=4))
def test_the_order_survives_whoever_sorts_it(rows: list[list[float]]) -> None:
    file = io.StringIO()
    RunWriter(file, "my tag").add([f"q{i}" for i in range(len(rows))], [ranked(r) for r in rows])
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert {line[5] for line in lines} == {"my_tag"}
    for question, group in itertools.groupby(lines, key=lambda line: line[0]):
        names = [line[2] for line in group]
        scores = [float(line[4]) for line in lines if line[0] == question]
        assert names == [f"d{i}" for i in range(len(names))]
        assert all(a > b for a, b in itertools.pairwise(scores))


def test_a_document_is_written_once_at_the_rank_of_its_best_passage() -> None:
    found = [
        RetrievedPassage(Passage(f"{d}:{i}", d, "", ""), s, i)
        for i, (d, s) in enumerate([("a", 3.0), ("b", 2.0), ("a", 1.0), ("c", 0.5)], 1)
    ]
    file = io.StringIO()
    RunWriter(file, "t").add(["q"], [found])
    assert file.getvalue().splitlines() == [
        "q Q0 a 1 3 t", "q Q0 b 2 2 t", "q Q0 c 3 0.5 t",
    ]  # fmt: skip


def test_an_id_with_a_blank_cannot_be_written() -> None:
    with pytest.raises(DataError, match="blank"):
        RunWriter(io.StringIO(), "t").add(["a question"], [ranked([1.0])])


@pytest.mark.parametrize("name", ["run.trec", "run.trec.gz"])
def test_a_run_is_there_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with written_run(str(path), "t") as writer:
        writer.add(["q"], [ranked([1.0])])
    before = path.read_bytes()
    with pytest.raises(DataError), written_run(str(path), "t") as writer:
        writer.add(["other", "a question"], [ranked([2.0]), ranked([1.0])])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert read_run(str(path))["question_id"].to_list() == ["q"]


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run.trec"
    with pytest.raises(StorageError, match="run.trec cannot be written"):
        with written_run(str(path), "t"):
            pass


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with written_run(str(path), "t") as writer:
        writer.add(["q"], [ranked([1.0])])
    assert os.read(reader, 100).startswith(b"q Q0 ")
    os.close(reader)
    assert path.is_fifo()


def test_scores_make_the_order_and_not_the_column_of_ranks(tmp_path: Path) -> None:
    path = tmp_path / "run.gz"
    text = "q2 Q0 a 1 0.5 x\nq1 Q0 b 1 -1 x\nq1\tQ0\tc\t2\t7e1\tx\n\nq1 Q0 d 3 -1 x\n"
    path.write_bytes(gzip.compress(text.encode()))
    run = read_run(str(path))
    assert run.filter(question_id="q1")["document_id"].to_list() == ["c", "b", "d"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q Q0 a 1 0.5\n", "line 1: not a line of a run"),
        ("q Q0 a 1 high x\n", "line 1: not a line of a run"),
        ("q Q0 a 1 nan x\n", "not a number"),
        ("q Q0 a 1 2 x\nq Q0 a 2 1 x\n", "'a' stands twice under question 'q'"),
        ("\n", "holds no line|empty"),
    ],
)
def test_a_file_that_is_no_run(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_run(str(path))


def test_what_the_corpus_does_not_have_is_left_out(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("q1 Q0 d1 1 3 x\nq1 Q0 other 2 2 x\nq1 Q0 d0:0 3 1 x\nq2 Q0 other 1 1 x\n")
    retriever = opened("trec_run", ["one", "two", "three"], file=str(path))
    rows = pl.DataFrame({"question_id": ["q2", "q1", "q3"], "question": ["", "", ""]})
    found = retriever.retrieve_rows(rows, 5)
    assert [[p.passage.text for p in row] for row in found] == [[], ["two", "one"], []]
    assert [p.score for p in found[1]] == [3.0, 1.0]
    assert [[p.passage.text for p in row] for row in retriever.retrieve_rows(rows, 1)][1] == ["two"]
    with pytest.raises(ConfigError, match="cannot be asked"):
        retriever.search(["one"], 1)


def test_documents_that_are_stored_as_one_passage_give_it_once_at_the_better_rank(
    opened: Opener, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    path.write_text("q Q0 d2 1 3 x\nq Q0 d1 2 2 x\nq Q0 d0 3 1 x\np Q0 d0 1 4 x\n")
    retriever = opened("trec_run", ["same", "other", "same"], file=str(path))
    rows = pl.DataFrame({"question_id": ["q", "p"], "question": ["", ""]})
    found = retriever.retrieve_rows(rows, 5)
    assert [[(p.passage.text, p.score) for p in row] for row in found] == [
        [("same", 3.0), ("other", 2.0)], [("same", 4.0)],
    ]  # fmt: skip


def test_a_run_of_another_collection_is_refused(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("q1 Q0 elsewhere 1 3 x\n")
    with pytest.raises(DataError, match="'elsewhere', is in the corpus"):
        opened("trec_run", ["one"], file=str(path))


def test_a_missing_run(opened: Opener, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        opened("trec_run", ["one"], file=str(tmp_path / "missing"))


def test_a_run_joins_another_search(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("q Q0 d2 1 9 x\n")
    retriever = opened(
        "hybrid",
        ["river", "river castle", "music"],
        retrievers=["bm25", "trec_run"],
        components={"trec_run": {"file": str(path)}},
        weights=[0.5, 0.6],
    )
    rows = pl.DataFrame({"question_id": ["q"], "question": ["river"]})
    found = retriever.retrieve_rows(rows, 3)[0]
    assert [p.passage.text for p in found] == ["music", "river", "river castle"]


def test_a_run_written_by_index_eval_is_evaluated_alike_by_trec_eval_and_by_us(
    tmp_path: Path,
) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    run, again = tmp_path / "bm25.trec", tmp_path / "again.trec"
    words = ["eval", "--dataset", "demo", "--cache-dir", str(tmp_path / "cache"), "--json"]
    whole = ["retriever.passage.size=400", "retriever.passage.stride=400"]  # one a document

    def figures(*more: str) -> dict[str, dict[str, float]]:
        result = CliRunner().invoke(index_command, [*words, *more], catch_exceptions=False)
        return dict(json.loads(result.stdout)["metrics"])

    ours = figures("--write-run", str(run), *whole)
    assert figures("--retriever", str(run), "--write-run", str(again)) == ours
    columns = [line.split()[:5] for line in run.read_text().splitlines()]
    assert [line.split()[:5] for line in again.read_text().splitlines()] == columns
    scores: dict[str, dict[str, float]] = {}
    for question, _, document, _, score in columns:
        scores.setdefault(question, {})[document] = float(score)
    from slm_vllm.datasets.registry import demo_path

    rows = [json.loads(line) for line in demo_path().read_text("utf-8").splitlines()]
    qrels = {r["question_id"]: {d["document_id"]: 1 for d in r["documents"]} for r in rows}
    names = {"ndcg_cut_10": "document_ndcg@10", "recip_rank": "document_mrr"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recip_rank"}).evaluate(scores)
    for peer, name in names.items():
        mean = sum(theirs.get(q, {}).get(peer, 0.0) for q in qrels) / len(qrels)
        assert ours[name]["mean"] == pytest.approx(mean, abs=1e-6), name

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from slm_vllm.cli.index import _progress, index
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.retrieval import build_progress


def run(*words: str) -> Result:
    return CliRunner().invoke(index, list(words), catch_exceptions=False)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Raw NQ rows: two pages, one of them under two questions."""
    rows = []
    for question, answer, title, text in (
        ("who wrote hamlet", "Shakespeare", "Hamlet", "Hamlet was written by William Shakespeare"),
        ("when was hamlet written", "1600", "Hamlet", "Hamlet was written by William Shakespeare"),
        ("where is the louvre", "Paris", "Louvre", "The Louvre is a museum in Paris , France"),
    ):
        page = f"<H1> {title} </H1> <P> {text} </P>"
        tokens = page.split()
        start = tokens.index("<P>")
        span = {"start_token": start, "end_token": len(tokens), "candidate_index": 0}
        rows.append(
            {
                "question": question,
                "answer": [answer],
                "document_text": page,
                "long_answer_candidates": [{**span, "top_level": True}],
                "annotations": [{"long_answer": span, "short_answers": []}],
                "document_url": f"https://example.org/{title}",
                "example_id": len(rows),
            }
        )
    path = tmp_path / "nq.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def test_build_info_search_eval(dataset: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    where = ["--dataset", str(dataset), "--cache-dir", cache]
    built = json.loads(run("build", *where, "--json").stdout)
    assert built["kind"] == "bm25" and built["n_passages"] == 2

    listed = json.loads(run("info", "--cache-dir", cache, "--json").stdout)["indexes"]
    assert {entry["kind"] for entry in listed} == {"passages", "bm25"}
    assert "2 passages" in run("info", "--cache-dir", cache).stdout

    found = json.loads(run("search", "who wrote Hamlet?", *where, "--top-k", "1", "--json").stdout)
    assert [p["title"] for p in found["passages"]] == ["Hamlet"]
    text = run("search", "who wrote Hamlet?", *where).stdout
    assert text.startswith("1. ") and "Shakespeare" in text
    assert "No passage" in run("search", "?!", *where).stdout

    result = json.loads(run("eval", *where, "--json").stdout)
    assert result["questions"] == 3
    assert result["metrics"]["document_hit@1"] == {"mean": 1.0, "n": 3}
    assert result["metrics"]["answer_hit@10"]["mean"] == pytest.approx(2 / 3)
    assert "document_ndcg@10" in run("eval", *where).stdout


def test_the_folder_of_indexes_may_have_any_name(dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a user's \\"
    run("build", "--dataset", str(dataset), "--cache-dir", str(cache))
    assert {path.name for path in cache.iterdir()} >= {"indexes"}


def test_overrides_reach_the_retriever(dataset: Path, tmp_path: Path) -> None:
    where = ["--dataset", str(dataset), "--cache-dir", str(tmp_path / "cache"), "--json"]
    words = ["retriever.passage.size=3", "retriever.passage.stride=3"]
    assert json.loads(run("build", *where, *words).stdout)["n_passages"] > 2
    with pytest.raises(ConfigError, match="Did you mean 'k1'"):
        run("build", *where, "retriever.options.k11=1")


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((DataError, ConfigError), match="nothing.jsonl"):
        run("build", "--dataset", str(tmp_path / "nothing.jsonl"))


def test_info_of_an_empty_cache(tmp_path: Path) -> None:
    assert "Build one" in run("info", "--cache-dir", str(tmp_path)).stdout


def test_changed_file_is_read_again(dataset: Path, tmp_path: Path) -> None:
    where = ["--dataset", str(dataset), "--cache-dir", str(tmp_path / "cache"), "--json"]
    assert json.loads(run("build", *where).stdout)["n_passages"] == 2
    dataset.write_text(dataset.read_text("utf-8").splitlines()[0], "utf-8")
    assert json.loads(run("build", *where).stdout)["n_passages"] == 1


def test_no_index_to_push(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no index to push"):
        run("push", "--bucket", "b", "--cache-dir", str(tmp_path))


def test_a_long_build_says_how_fast_it_is_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, 10.0, 12.0, 70.0])  # made, and each report
    monkeypatch.setattr(build_progress, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    progress = _progress()
    for done in (1_000, 1_200, 7_000):
        progress("counting words", done, 10_000)
    assert capsys.readouterr().err == "counting words: 7,000 of 10,000, 100/s, 0:30 left\n"


@pytest.mark.parametrize("retriever", ["reranked", "hyde", "keywords"])
def test_what_asks_a_language_model_is_built_and_not_searched(
    retriever: str, dataset: Path, tmp_path: Path
) -> None:
    words = ("--dataset", str(dataset), "--cache-dir", str(tmp_path / "cache"))
    built = run("build", *words, "--retriever", retriever, "--json")
    plain = run("build", *words, "--retriever", "bm25", "--json")
    assert json.loads(built.stdout)["fingerprint"] == json.loads(plain.stdout)["fingerprint"]
    for command in (("eval",), ("search", "who")):
        with pytest.raises(ConfigError, match="no model is loaded here"):
            run(*command, *words, "--retriever", retriever)

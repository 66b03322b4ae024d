"""Which column holds which field: by its name, as mapped, or said with the nearest name."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from slm_vllm.cli.data import data
from slm_vllm.config.compose import compose_config
from slm_vllm.datasets.registry import open_configured, open_dataset
from slm_vllm.errors import ConfigError, DataError
from support.dataset_samples import jsonl, read, write

ROWS = [
    {"frage": "q1", "loesung": {"texte": ["007", "1.10"]}, "text": "c1", "nr": "n1", "stufe": 3},
    {"frage": "q2", "loesung": {"texte": ["1990"]}, "text": "c2", "nr": "n2", "stufe": 4},
]
COLUMNS = {
    "question": "frage",
    "answers": "loesung.texte",
    "contexts": "text",
    "question_id": "nr",
    "metadata": ["stufe"],
}
FILES = {
    "a.jsonl": jsonl(ROWS),
    "a.jsonl.gz": gzip.compress(jsonl(ROWS)),
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "data.json": json.dumps({"n": 2, "fragen": ROWS}).encode(),
    "frame.json": json.dumps(
        {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}
    ).encode(),
}


@pytest.mark.parametrize("kind", [None, "hf"])
@pytest.mark.parametrize("name", [*FILES, "a.parquet"])
def test_a_mapping_works_for_every_form(name: str, kind: str | None, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        pl.DataFrame(ROWS).write_parquet(path)
    else:
        path.write_bytes(FILES[name])
    rows, rejected = read(path, kind, columns=COLUMNS)
    assert not rejected
    assert [row["question_id"] for row in rows] == ["n1", "n2"]
    assert [row["answers"] for row in rows] == [["007", "1.10"], ["1990"]]
    assert [row["contexts"] for row in rows] == [["c1"], ["c2"]]
    assert [json.loads(row["metadata"]) for row in rows] == [{"stufe": 3}, {"stufe": 4}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("kind", [None, "hf"])
def test_text_stays_text(delimiter: str, kind: str | None, tmp_path: Path) -> None:
    answers = ["007", "1.10", "01067", "1990", "true", "1e3", "NULL", "nan"]
    lines = ["query,target", *(f"q{n},{text}" for n, text in enumerate(answers))]
    content = "\n".join(lines).replace(",", delimiter)
    path = write(tmp_path / "a.csv.bz2", bz2.compress(content.encode()))
    rows, _ = read(path, kind, columns={"question": "query", "answers": "target"})
    assert [row["answers"] for row in rows] == [[text] for text in answers]


def test_columns_that_nobody_knows_are_still_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "frame.json", FILES["frame.json"])
    with pytest.raises(DataError, match="json with the columns frage, loesung, text, nr, stufe"):
        read(path)


def test_a_way_through_lists(tmp_path: Path) -> None:
    rows = [{"ask": "q", "out": [{"a": {"t": "x"}}, {"b": 1}, {"a": [{"t": ["y", "x"]}]}]}]
    path = write(tmp_path / "a.jsonl", jsonl(rows))
    (row,), _ = read(path, columns={"question": "ask", "answers": "out.a.t"})
    assert row["answers"] == ["x", "y"]


def test_a_column_with_dots_in_its_name_comes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl([{"q.text": "q", "q": {"text": "no"}, "answer": "a"}]))
    (row,), _ = read(path, columns={"question": "q.text"})
    assert row["question"] == "q"


def test_answers_of_several_columns(tmp_path: Path) -> None:
    text = b"question,answer1,answer2\nq,007,\nr,a,b\ns,,\n"
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=r"columns\.answers=\[answer1,answer2\]"):
        read(path)
    rows, _ = read(path, columns={"answers": ["answer1", "answer2"]})
    assert [row["answers"] for row in rows] == [["007"], ["a", "b"], []]
    assert {row["metadata"] for row in rows} == {"{}"}
    with pytest.raises(DataError, match="no column 'answer3'"):
        read(path, columns={"answers": ["answer1", "answer3"]})
    report = json.loads(run("check", path, "answers=[answer1,answer2]", "--json").stdout)
    assert report["empty_answers"] == 1


def run(*words: object) -> Any:
    return CliRunner().invoke(data, [str(word) for word in words])


@pytest.mark.parametrize("prefix", ["", "dataset.options.columns."])
def test_data_check_and_stats_take_the_words_of_a_run(prefix: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"query,target\nq1,a1\nq2,\n")
    words = [f"{prefix}question=query", f"{prefix}answers=target"]
    report = json.loads(run("check", path, *words, "--json").stdout)
    assert (report["rows"], report["empty_answers"]) == (2, 1)
    assert json.loads(run("stats", path, *words, "--json").stdout)["lengths"]["answer"]["n"] == 1


def test_a_run_is_told_in_the_same_words(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"query,target\nq1,a1\n")
    words = ["question=query", "answers=target"]
    config = compose_config(
        [
            "dataset=custom",
            "dataset.name=a",
            f"dataset.path={path}",
            *(f"dataset.options.columns.{word}" for word in words),
        ]
    )
    (frame,) = open_configured(config.dataset).scan()
    assert frame.select("question", "answers").rows() == [("q1", ["a1"])]


@pytest.mark.parametrize(
    ("header", "words", "expected"),
    [
        ("Frage,answer", [], r"'question'.*Found: csv with the columns Frage, answer"),
        ("questoin,answer", [], r"'question'.*nearest: 'questoin'.*columns\.question=questoin"),
        ("question,reply", [], r"'answer'.*nearest: 'reply'.*columns\.answers=reply"),
        ("question,gold label", [], r"'dataset\.options\.columns\.answers=gold label'"),
        ("query,target", ["answers=targets"], r"'targets'.*nearest: 'target'"),
        ("query,target", ["answers=a.b"], r"'a\.b'"),
        ("question,answer", ["metadata=[level]"], r"'level'"),
    ],
)
def test_what_is_missing_is_said_with_the_nearest_name(
    header: str, words: list[str], expected: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", f"{header}\nx,y\n".encode())
    result = run("check", path, *words)
    assert isinstance(result.exception, DataError)
    with pytest.raises(DataError, match=expected):
        raise result.exception


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("questions=query", "Did you mean 'question'"),
        ("question", "FIELD=COLUMN"),
        ("question=", "FIELD=COLUMN"),
        ("question=[a,b]", "must be the name of a column"),
    ],
)
def test_a_mapping_that_makes_no_sense(word: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"query,target\nq1,a1\n")
    result = run("check", path, word)
    assert isinstance(result.exception, ConfigError) and expected in str(result.exception)


def test_questions_alone_are_rows_that_are_unscored(tmp_path: Path) -> None:
    for content in (b"question\nq1\nq2\n", jsonl([{"question": "q1"}, {"question": "q2"}])):
        rows, rejected = read(write(tmp_path / "a.data", content))
        assert [row["answers"] for row in rows] == [[], []] and not rejected
    path = write(tmp_path / "a.csv", b"question,reply\nq1,x\n")
    rows, _ = read(path, columns={"answers": None})
    assert rows[0]["answers"] == [] and json.loads(rows[0]["metadata"]) == {"reply": "x"}


def test_own_ids_are_ids(tmp_path: Path) -> None:
    for name in ("id", "_id", "qid", "query_id", "question_id", "Question ID"):
        rows = [{name: f"x{n}", "question": "same?", "answer": "a"} for n in range(3)]
        found, rejected = read(write(tmp_path / "a.jsonl", jsonl(rows)))
        assert [row["question_id"] for row in found] == ["x0", "x1", "x2"] and not rejected


def test_without_an_id_the_context_tells_rows_of_one_question_apart(tmp_path: Path) -> None:
    rows = [
        {"question": "When?", "answer": year, "context": f"Opened in {year}."}
        for year in ("1990", "1991", "1990", "1992")
    ]
    path = write(tmp_path / "a.jsonl", jsonl([*rows, {"question": "When?", "answer": "x"}]))
    for batch_size in (1, 2, 100):
        rejected: list[Any] = []
        dataset = open_dataset(None, path, on_reject=rejected.append)
        frame = pl.concat(dataset.scan(batch_size))
        assert frame["answers"].to_list() == [["1990"], ["1991"], ["1992"]]
        assert frame["question_id"].n_unique() == 3
        assert [row.line for row in rejected] == [3, 5]
    # The first keeps the id it has without the others.
    (alone,), _ = read(write(tmp_path / "b.jsonl", jsonl([{"question": "When?", "answer": "x"}])))
    assert frame["question_id"][0] == alone["question_id"]


def test_an_id_of_several_questions_is_not_theirs(tmp_path: Path) -> None:
    rows = [{"id": "page", "question": f"q{n}", "answer": "a"} for n in (1, 2, 2)]
    found, rejected = read(write(tmp_path / "a.jsonl", jsonl(rows)))
    assert [row["question"] for row in found] == ["q1", "q2"]
    assert [row.line for row in rejected] == [3]


def test_files_that_match_a_pattern_are_read_in_turn(tmp_path: Path) -> None:
    for n in (1, 2):
        rows = [{"question": f"q{n}", "answer": "a"}, {"question": " "}]
        write(tmp_path / f"part-{n}.jsonl", jsonl(rows))
    found, rejected = read(tmp_path / "part-*.jsonl")
    assert [row["question"] for row in found] == ["q1", "q2"]
    assert [Path(row.path).name for row in rejected] == ["part-1.jsonl", "part-2.jsonl"]
    with pytest.raises(DataError, match="no file matches"):
        read(tmp_path / "none-*.jsonl")

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from slm_vllm.cli.data import data
from slm_vllm.datasets.catalog import find_dataset, read_catalog
from slm_vllm.errors import ConfigError, DataError
from support.dataset_samples import jsonl, nq_row, simple_qa_csv, simple_qa_row, write


def run(*arguments: object, expect: type[BaseException] | None = None) -> str:
    result = CliRunner().invoke(data, [str(argument) for argument in arguments])
    if expect is None:
        assert result.exit_code == 0, result.output
    else:
        assert isinstance(result.exception, expect), result.output
    return result.stdout


def test_check_counts(tmp_path: Path) -> None:
    lines = [nq_row(1), b"{", nq_row(1), nq_row(2, answer=[]), nq_row(3, annotations=[])]
    path = write(tmp_path / "a.jsonl", jsonl(lines))
    report = json.loads(run("check", path, "--json"))
    assert report["usable"] and report["kind"] == "nq"
    figures = {key: report[key] for key in ("rows", "rejected", "duplicates", "empty_answers")}
    assert figures == {"rows": 3, "rejected": 2, "duplicates": 1, "empty_answers": 1}
    assert (report["without_contexts"], report["without_documents"]) == (1, 0)
    assert [row["line"] for row in report["first_rejected"]] == [2, 3]
    assert "line 2: invalid JSON" in run("check", path)


def test_check_shows_how_the_first_row_is_understood(tmp_path: Path) -> None:
    lines = [
        {"question": ""},
        {
            "question": "Capital\x1b of\nFrance?",
            "answer": ["Paris|Lutetia", "b", "c", "d", "e", "f"],
            "context": "long " * 100,
            "documents": [{"id": "p", "title": "Paris", "text": "A city."}],
        },
        {"question": "another?", "answer": "x"},
    ]
    path = write(tmp_path / "a.jsonl", jsonl(lines))
    first = json.loads(run("check", path, "--json"))["first_row"]
    assert first["question"] == "Capital\x1b of\nFrance?" and first["answers"][1:3] == ["b", "c"]
    assert first["context"] == ("long " * 100)[:200] and first["document"] == "Paris: A city."
    said = run("check", path)
    assert '  first question     "Capital\\x1b of France?"\n' in said
    assert '  first answers      "Paris|Lutetia", "b", "c", "d", "e" and 1 more\n' in said
    path = write(tmp_path / "b.jsonl", jsonl([{"question": "a?", "answer": None}]))
    said = run("check", path)
    assert re.search(r"first answers +-\n  first context +-\n  first document +-\n", said)


def test_check_unusable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"")
    report = json.loads(run("check", path, "--json", expect=DataError))
    assert report["usable"] is False and "empty" in report["error"]
    assert DataError.exit_code == 3


def test_check_demo_by_name() -> None:
    assert json.loads(run("check", "demo", "--json"))["rejected"] == 0


def test_unknown_name() -> None:
    result = CliRunner().invoke(data, ["check", "simple-qa"])
    assert "Did you mean 'simple_qa'" in str(result.exception)


def test_prepare_and_stats(tmp_path: Path) -> None:
    rows = [simple_qa_row(1), simple_qa_row(2, answer=""), simple_qa_row(3, metadata="{}")]
    raw = write(tmp_path / "raw.csv", simple_qa_csv(rows))
    made = json.loads(
        run("prepare", "simple_qa", "--input", raw, "--output-dir", tmp_path / "o", "--json")
    )
    assert made["rows"] == 3 and len(made["files"]) == 4
    stats = json.loads(run("stats", made["files"][0], "--json"))
    assert stats["rows"] == 3
    assert stats["lengths"]["question"] == {
        "n": 3,
        "mean": 4.0,
        "min": 4.0,
        "median": 4.0,
        "p95": 4.0,
        "max": 4.0,
    }
    assert stats["lengths"]["answer"]["n"] == 2
    assert stats["lengths"]["document"]["mean"] == 8.0
    assert stats["topics"] == {
        "Art": {"rows": 2, "question_words": 4.0, "answer_words": 2.0},
        "(none)": {"rows": 1, "question_words": 4.0, "answer_words": 2.0},
    }
    assert "Art" in run("stats", made["files"][0])


def test_list_names_every_configuration() -> None:
    listed = {row["name"]: row for row in json.loads(run("list", "--json"))["datasets"]}
    assert {"nq", "local_nq", "rag_nq", "simple_qa", "local_simple_qa", "demo"} <= set(listed)
    assert listed["demo"]["bytes"] > 0
    assert "missing" in run("list")


def test_a_section_that_is_a_word_holds_no_path(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "odd.yaml").write_text("# @package _global_\ndataset: nq\n")
    (odd,) = [entry for entry in read_catalog(tmp_path) if entry.name == "odd"]
    assert not odd.path


def test_catalog_of_an_own_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    write(tmp_path / "dataset" / "mine.yaml", b"kind: hf\npath: hf://a\nsplit: dev\n")
    write(tmp_path / "dataset" / "open.yaml", b"path: ???\n")
    (mine,) = [entry for entry in read_catalog(tmp_path) if entry.name == "mine"]
    assert (mine.name, mine.kind, mine.options) == ("mine", "hf", {"split": "dev"})
    with pytest.raises(ConfigError, match="give a path"):
        find_dataset("open", tmp_path)
    with pytest.raises(DataError, match="is neither a file nor"):
        find_dataset("nothing", tmp_path)
    assert find_dataset("a.jsonl", tmp_path).path == "a.jsonl"


def test_files_of_a_folder_and_of_a_pattern_are_there(tmp_path: Path) -> None:
    for folder in ("files/deep", "dataset"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / "files" / "deep" / "a.jsonl", b"12345")
    write(tmp_path / "files" / "b.jsonl", b"123")
    paths = {"folder": "files", "pattern": "files/*.jsonl", "gone": "no", "nothing": "no/*.jsonl"}
    for name, path in paths.items():
        write(tmp_path / "dataset" / f"{name}.yaml", f"path: {tmp_path / path}\n".encode())
    sizes = {entry.name: entry.size for entry in read_catalog(tmp_path) if entry.name in paths}
    assert sizes == {"folder": 8, "pattern": 3, "gone": None, "nothing": None}


def test_a_configuration_that_is_no_text_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    path = write(tmp_path / "dataset" / "mine.yaml", b"path: \xff\xfe\n")
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_catalog(tmp_path)


def test_clean_cache(tmp_path: Path) -> None:
    folder = tmp_path / "datasets"
    (folder / "deep").mkdir(parents=True)
    write(folder / "deep" / "a", b"12345")
    refused = CliRunner().invoke(data, ["clean-cache", "--cache-dir", str(tmp_path)], input="n\n")
    assert refused.exit_code == 1 and (folder / "deep" / "a").exists()
    report = json.loads(run("clean-cache", "--cache-dir", tmp_path, "--yes", "--json"))
    assert (report["files"], report["bytes"]) == (1, 5)
    assert folder.is_dir() and not list(folder.iterdir())
    run("clean-cache", "--cache-dir", tmp_path / "none", "--yes")


@pytest.mark.parametrize("command", ["prepare", "check", "list", "stats", "clean-cache"])
def test_help_has_an_example(command: str) -> None:
    shown = run(command, "--help")
    assert f"\n    slm-vllm data {command}" in shown and "\\b" not in shown


def test_check_says_when_no_metric_can_judge_the_dataset(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n}?", "answer": ["?", "🎉"]} for n in range(2)]
    path = write(tmp_path / "a.jsonl", jsonl(rows))
    assert json.loads(run("check", path, "--json"))["empty_answers"] == 2
    assert "no metric can judge this dataset" in run("check", path)
    path = write(tmp_path / "b.jsonl", jsonl([*rows, {"question": "Where?", "answer": "北京"}]))
    assert "no metric" not in run("check", path)

"""A dataset is parsed once for a command; only documents are read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slm_vllm.config.schema import Config
from slm_vllm.datasets import base
from slm_vllm.datasets.base import limited_scan
from slm_vllm.datasets.qa_pairs import QaPairsDataset
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.runs.row_cache import RowCache

MakeConfig = Callable[..., Config]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each scan of a dataset read documents too."""
    made: list[bool] = []
    scan = QaPairsDataset.scan

    def counted(self: QaPairsDataset, *args: Any, with_documents: bool) -> Iterator[pl.DataFrame]:
        made.append(with_documents)
        return scan(self, *args, with_documents=with_documents)

    monkeypatch.setattr(QaPairsDataset, "scan", counted)
    return made


def surveyed(config: Config, folder: Path) -> QuestionSet:
    questions = QuestionSet(config)
    questions.survey([folder / "rejected.jsonl"])
    return questions


def test_rows_are_parsed_once(make_config: MakeConfig, tmp_path: Path, scans: list[bool]) -> None:
    config = make_config()
    questions = surveyed(config, tmp_path)
    (expected,) = open_dataset(None, config.dataset.path).scan(with_documents=False)
    scans.clear()
    for _ in range(2):
        assert pl.concat(questions.scan()).equals(expected)
    assert scans == [] and questions.keeps(with_documents=False)
    assert pl.concat(questions.scan(with_documents=True))["documents"].list.len().min() == 1
    assert scans == [True] and not questions.keeps(with_documents=True)


def test_without_room_they_are_parsed_again(
    make_config: MakeConfig, tmp_path: Path, scans: list[bool]
) -> None:
    (tmp_path / "full").write_text("a file where a folder should be")
    questions = surveyed(make_config(f"cache_dir={tmp_path / 'full'}"), tmp_path)
    assert pl.concat(questions.scan()).height == 10
    assert scans == [False, False] and not questions.keeps(with_documents=False)


def test_a_disk_that_fills_up_costs_what_was_kept(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slm_vllm.runs.row_cache._MOST_BYTES", 10)
    questions = surveyed(make_config(), tmp_path)
    assert not questions.keeps(with_documents=False)
    assert pl.concat(questions.scan()).height == 10


def test_several_read_what_was_kept_at_once(tmp_path: Path) -> None:
    kept = RowCache(tmp_path / "cache")
    frames = [pl.DataFrame({"n": [n], "texts": [["a", "b"]]}) for n in range(3)]
    for frame in frames:
        kept.add(frame)
    first, second = kept.frames(), kept.frames()
    for frame in frames:
        assert next(first).equals(frame) and next(second).equals(frame)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(("most", "expected"), [(4, [4]), (5, [3, 2]), (9, [3, 3, 3])])
def test_a_limited_scan_is_in_equal_parts(
    most: int, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "BATCH_ROWS", 4)
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"question": f"q{n}", "answer": "a"}) for n in range(20)]
    path.write_text("\n".join(lines))
    assert [frame.height for frame in limited_scan(open_dataset(None, path), most)] == expected

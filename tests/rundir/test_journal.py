from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.errors import StorageError
from slm_vllm.rundir.journal import JOURNAL_SCHEMA, Journal


def record(key: int, prediction: str = "x", error: str | None = None) -> dict[str, Any]:
    return {name: None for name in JOURNAL_SCHEMA} | {
        "key": f"{key:016x}",
        "question_id": f"q{key}",
        "question": "who",
        "answers": ["a"],
        "prediction": prediction,
        "contexts": [],
        "error": error,
    }


def predictions(journal: Journal, keys: list[int]) -> list[str]:
    frames = journal.read(np.array(keys, dtype=np.uint64), batch_size=3)
    return [text for frame in frames for text in frame["prediction"]]


LINE = (
    '{"key":"000000000000001f","question_id": "q31", "question": "who", "answers": ["a"], '
    '"prediction": "Rhône 東京", "completion": null, "contexts": [{"passage_id": "p", '
    '"document_id": "d", "title": "t", "text": "x", "score": 0.5, "rank": 1}], '
    '"context_type": "oracle", "n_passages_used": 1, "truncated": false, '
    '"unterminated_thinking": false, "finish_reason": "stop", "n_prompt_tokens": 7, '
    '"n_completion_tokens": 3, "error": null, "search": null, '
    '"metadata": "{\\"topic\\": \\"t\\"}"}\n'
)
CONTENT = {
    **{"key": "000000000000001f", "question_id": "q31", "question": "who", "answers": ["a"]},
    **{"prediction": "Rhône 東京", "completion": None, "context_type": "oracle"},
    "contexts": [
        {"passage_id": "p", "document_id": "d", "title": "t", "text": "x", "score": 0.5, "rank": 1}
    ],
    **{"n_passages_used": 1, "truncated": False, "unterminated_thinking": False},
    **{"finish_reason": "stop", "n_prompt_tokens": 7, "n_completion_tokens": 3},
    **{"error": None, "search": None, "metadata": '{"topic": "t"}'},
}


def test_a_line_looks_as_in_earlier_versions(tmp_path: Path) -> None:
    """Journals go from version to version."""
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append(CONTENT)
    assert path.read_text(encoding="utf-8") == LINE
    with Journal(path) as journal:
        (frame,) = journal.read(np.array([31], dtype=np.uint64))
    assert frame.to_dicts() == [CONTENT]


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=6))
def test_reads_between_appends_find_the_last_line_of_each_key(parts: list[list[int]]) -> None:
    last: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "j") as journal:
        for number, keys in enumerate(parts):
            for place, key in enumerate(keys):
                last[key] = f"{number}.{place}"
                journal.append(record(key, last[key]))
            assert predictions(journal, list(range(10))) == [last[key] for key in sorted(last)]
            assert journal.keys().tolist() == sorted(last)


def test_reads_back_in_the_order_asked_for(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        for key in (5, 2**64 - 1, 0, 7):
            journal.append(record(key, f"p{key}"))
        assert predictions(journal, [7, 5, 99, 2**64 - 1, 0]) == [
            "p7",
            "p5",
            "p18446744073709551615",
            "p0",
        ]


def test_the_last_of_two_answers_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append(record(1, "", error="failed"))
        assert journal.keys(with_failed=False).tolist() == []
        journal.append(record(1, "good"))
    with Journal(tmp_path / "j") as journal:
        assert journal.keys(with_failed=False).tolist() == [1]
        assert predictions(journal, [1]) == ["good"]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(), min_size=1, max_size=5),
    cut=st.floats(0, 1),
)
def test_any_prefix_of_its_bytes_is_a_valid_journal(texts: list[str], cut: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        with Journal(path) as journal:
            for key, text in enumerate(texts):
                journal.append(record(key, text))
        data = path.read_bytes()
        kept = data[: round(len(data) * cut)]
        path.write_bytes(kept)
        whole = kept.count(b"\n")
        with Journal(path) as journal:
            assert journal.keys().tolist() == list(range(whole))
            # Lone surrogates cannot be written as UTF-8; all else comes back as it was.
            expected = [t.encode("utf-8", "replace").decode() for t in texts[:whole]]
            assert predictions(journal, list(range(len(texts)))) == expected
            journal.append(record(99, "after"))
        with Journal(path) as journal:
            assert predictions(journal, [99]) == ["after"]


def test_a_damaged_line_in_the_middle_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        for key in range(3):
            journal.append(record(key))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0\xff garbage\n" + lines[2])
    with Journal(path) as journal:
        assert journal.keys().tolist() == [0, 2]


def test_a_full_disk_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    real_write = os.write
    with Journal(path) as journal:
        journal.append(record(1))
        monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:10]))
        with pytest.raises(StorageError, match="full"):
            journal.append(record(2))

        def refuse(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", refuse)
        with pytest.raises(StorageError, match="No space left"):
            journal.append(record(3))
        monkeypatch.undo()
        journal.append(record(4))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [int(line["key"], 16) for line in lines] == [1, 4]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        Journal(tmp_path / "missing" / "j")


def test_long_lines_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_vllm.rundir.journal._READ_BYTES", 2_000)
    with Journal(tmp_path / "predictions.jsonl") as journal:
        for key in range(5):
            journal.append(record(key, str(key) * 1_000))
        frames = list(journal.read(np.arange(5, dtype=np.uint64)))
    assert [frame.height for frame in frames] == [2, 2, 1]
    assert pl.concat(frames)["prediction"].to_list() == [str(key) * 1_000 for key in range(5)]


@pytest.mark.parametrize(
    "line",
    [
        '{"key":"0000000000000001","error":null}',  # of a version that knew fewer columns
        '{"key":"0000000000000001","error":null,"later":{"a":[1]},"n_prompt_tokens":7}',
    ],
)
def test_lines_of_other_versions_are_read_as_from_a_file(tmp_path: Path, line: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(line + "\n")
    with Journal(path) as journal:
        (frame,) = journal.read(np.array([1], dtype=np.uint64))
    assert frame.equals(pl.read_ndjson(path, schema=JOURNAL_SCHEMA), null_equal=True)

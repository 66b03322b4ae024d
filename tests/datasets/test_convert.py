from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slm_vllm.datasets import convert as convert_module
from slm_vllm.datasets.convert import convert
from slm_vllm.datasets.schema import CANONICAL_SCHEMA
from slm_vllm.errors import ConfigError, DataError, StorageError
from support.dataset_samples import jsonl, nq_row, read, simple_qa_csv, simple_qa_row, write
from support.places import sample

NQ_FILES = [
    "nq_converted_eval.json",
    "nq_converted_train.json",
    "nq_full_dataset.json",
    "nq_full_dataset.parquet",
]
SIMPLE_QA_FILES = [
    "simple_qa_converted.json",
    "simple_qa_converted.parquet",
    "simple_qa_eval.json",
    "simple_qa_train.json",
]


def raw_nq(folder: Path, n: int = 11) -> Path:
    rows: list[Any] = [nq_row(number) for number in range(n)]
    rows[1]["annotations"] = []
    rows[2]["answer"] = []
    return write(folder / "raw.jsonl.gz", jsonl(rows))


def raw_simple_qa(folder: Path, n: int = 11) -> Path:
    rows = [simple_qa_row(number) for number in range(n)]
    rows[1]["documents"] = "['<P> one , </P>', 'two']"
    return write(folder / "raw.csv", simple_qa_csv(rows))


def test_nq_record_by_hand(tmp_path: Path) -> None:
    convert("nq", raw_nq(tmp_path, 3), tmp_path / "out")
    first = json.loads((tmp_path / "out" / "nq_full_dataset.json").read_text())[0]
    assert first == {
        "question": "where is oak isle 0",
        "answer": ["east"],
        "context": "Oak Isle\n\nIt lies, east\n\nof it.",
        "long_context": ["It lies, east"],
        "short_context": ["east"],
        "id": "1000000000000000000",
        "url": "https://en.wikipedia.org/w/index.php?title=Oak_Isle&oldid=7",
        "title": "Oak Isle",
    }


@pytest.mark.parametrize(
    ("kind", "make", "files"),
    [("nq", raw_nq, NQ_FILES), ("simple_qa", raw_simple_qa, SIMPLE_QA_FILES)],
)
def test_files_split_and_reading_back(tmp_path: Path, kind: str, make: Any, files: list) -> None:
    out = tmp_path / "out"
    raw = make(tmp_path)
    done = convert(kind, raw, out)
    assert (done.rows, done.train, done.eval, done.rejected) == (11, 8, 3, 0)
    assert sorted(path.name for path in out.iterdir()) == files
    expected, _ = read(raw)
    train, evaluation = (read(next(out.glob(f"*_{part}.json")))[0] for part in ("train", "eval"))
    assert train + evaluation == expected
    assert read(done.files[0])[0] == expected
    (parquet,) = out.glob("*.parquet")
    assert read(parquet)[0] == read(parquet, kind)[0] == expected
    assert pl.read_parquet_schema(parquet) == CANONICAL_SCHEMA


def test_simple_qa_converted_has_both_splits_and_sizes(tmp_path: Path) -> None:
    convert("simple_qa", raw_simple_qa(tmp_path), tmp_path / "out")
    both = json.loads((tmp_path / "out" / "simple_qa_converted.json").read_text())
    assert (both["train_size"], both["eval_size"]) == (8, 3)
    for part in ("train", "eval"):
        alone = json.loads((tmp_path / "out" / f"simple_qa_{part}.json").read_text())
        assert both[part] == alone


@pytest.mark.parametrize(("kind", "make"), [("nq", raw_nq), ("simple_qa", raw_simple_qa)])
@pytest.mark.parametrize("n", [3, 300])
def test_bytes_are_stable(tmp_path: Path, kind: str, make: Any, n: int) -> None:
    first = convert(kind, make(tmp_path, n), tmp_path / "a")
    second = convert(kind, make(tmp_path, n), tmp_path / "b")
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_one_row_gives_an_empty_train_file(tmp_path: Path) -> None:
    done = convert(
        "simple_qa", write(tmp_path / "a.csv", simple_qa_csv([simple_qa_row()])), tmp_path
    )
    assert (done.train, done.eval) == (0, 1)
    assert json.loads((tmp_path / "simple_qa_train.json").read_text()) == []
    json.loads((tmp_path / "simple_qa_converted.json").read_text())


def test_rejected_rows_and_strict(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", jsonl([nq_row(1), b"{broken", nq_row(2)]))
    done = convert("nq", raw, tmp_path / "out")
    assert (done.rows, done.rejected) == (2, 1)
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["line"] == 2
    before = {path: path.read_bytes() for path in done.files}
    with pytest.raises(DataError, match=r"line 2: invalid JSON at column 2.*--strict"):
        convert("nq", raw, tmp_path / "out", strict=True)
    assert {path: path.read_bytes() for path in done.files} == before
    assert not list((tmp_path / "out").glob(".*"))


def test_disk_full_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(convert_module, "_copy_rows", full)
    with pytest.raises(StorageError, match="No space left"):
        convert("nq", raw_nq(tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_unwritable_output_folder(tmp_path: Path) -> None:
    blocked = write(tmp_path / "file", b"x")
    with pytest.raises(StorageError, match="cannot write to"):
        convert("nq", raw_nq(tmp_path), blocked / "out")


def test_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nq, simple_qa"):
        convert("squad", raw_nq(tmp_path), tmp_path)


@pytest.mark.slow
def test_parquet_row_groups_are_bounded(tmp_path: Path) -> None:
    page = "<P> " + "word " * 40_000 + "</P>"
    rows = [nq_row(number, document_text=page) for number in range(200)]
    convert("nq", write(tmp_path / "raw.jsonl", jsonl(rows)), tmp_path)
    sizes = pl.scan_parquet(tmp_path / "nq_full_dataset.parquet")
    assert sizes.select(pl.len()).collect().item() == 200
    pyarrow = pytest.importorskip("pyarrow.parquet")
    groups = pyarrow.ParquetFile(tmp_path / "nq_full_dataset.parquet").metadata
    assert groups.num_row_groups > 1
    assert all(
        groups.row_group(at).total_byte_size < 40 << 20 for at in range(groups.num_row_groups)
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [("nq", "NQ-open.sample.merged.jsonl.gz"), ("simple_qa", "simple_qa.sample.csv")],
)
def test_real_samples_read_back_equal(tmp_path: Path, kind: str, name: str) -> None:
    raw = sample(name)
    done = convert(kind, raw, tmp_path)
    expected, _ = read(raw)
    assert read(done.files[0])[0] == expected
    (parquet,) = tmp_path.glob("*.parquet")
    assert read(parquet)[0] == expected

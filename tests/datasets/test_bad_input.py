"""Every bad file a user may bring: what is said, and on which line."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slm_vllm.datasets.inspection import check_dataset
from slm_vllm.datasets.registry import open_dataset, sniff_kind
from slm_vllm.errors import ConfigError, DataError, MissingExtraError
from support.dataset_samples import jsonl, nq_row, read, simple_qa_csv, simple_qa_row, write

PAIR = {"question": "q?", "answer": "a"}


def pairs(n: int) -> list[Any]:
    return [{**PAIR, "question_id": f"r{number}"} for number in range(1, n + 1)]


@pytest.mark.parametrize("kind", [None, "nq", "simple_qa", "qa_pairs", "hf"])
def test_missing_file_names_the_nearest(tmp_path: Path, kind: str | None) -> None:
    write(tmp_path / "NQ-open.dev.merged.jsonl", b"x")
    with pytest.raises(DataError, match=r"does not exist.*nearest.*NQ-open\.dev\.merged\.jsonl"):
        read(tmp_path / "NQ-open.dev.jsonl", kind)


@pytest.mark.parametrize("kind", [None, "nq", "simple_qa", "qa_pairs", "hf"])
@pytest.mark.parametrize("content", [b"", b"\n \n\n"])
def test_empty_file(tmp_path: Path, kind: str | None, content: bytes) -> None:
    with pytest.raises(DataError, match="empty"):
        read(write(tmp_path / "a.jsonl", content), kind)


def test_header_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read(write(tmp_path / "a.csv", simple_qa_csv([])))


def test_empty_array(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a.json"):
        read(write(tmp_path / "a.json", b"[]"), "nq")


def test_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b"x")
    with pytest.raises(DataError, match=r"is a folder.*a\.jsonl"):
        read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_permission_denied(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"x")
    path.chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        read(path)


def test_truncated_gzip_names_the_last_good_line(tmp_path: Path) -> None:
    rows = [{**pair, "noise": os.urandom(500).hex()} for pair in pairs(2000)]
    path = write(tmp_path / "a.jsonl", gzip.compress(jsonl(rows))[:-200_000])
    got = []
    with pytest.raises(DataError, match=r"truncated or corrupt.*after line (\d+)") as error:
        got += [frame.height for frame in open_dataset("qa_pairs", path).scan(100)]
    assert "a.jsonl" in str(error.value)


def test_corrupt_gzip(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(jsonl(pairs(5000))))
    content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    with pytest.raises(DataError, match="truncated or corrupt"):
        read(write(tmp_path / "a.jsonl", bytes(content)), "qa_pairs")


def test_truncated_parquet(tmp_path: Path) -> None:
    read_rows, _ = read(write(tmp_path / "a.jsonl", jsonl(pairs(3))))
    pl.DataFrame(read_rows).write_parquet(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(DataError, match="Parquet file is truncated"):
        read(write(tmp_path / "b.parquet", content[:-20]))


def test_malformed_lines_in_the_middle(tmp_path: Path) -> None:
    lines: list[Any] = [
        nq_row(1),
        b"",
        b'{"question": "cut off", "answ',
        nq_row(2),
        {"question": "no page", "answer": ["x"]},
        nq_row(3, annotations={"long_answer": 1}),
        nq_row(4, question="  "),
        b"[1, 2]",
        b"null",
        nq_row(5, document_text="\ud800 lone"),
        nq_row(6, document_text="pair \U0001f600 ok"),
        nq_row(2),
    ]
    rows, rejected = read(write(tmp_path / "a.jsonl", jsonl(lines)))
    assert [row["question"][-1] for row in rows] == ["1", "2", "6"]
    assert rows[2]["documents"][0]["text"] == "pair \U0001f600 ok"
    assert {row.line: row.reason for row in rejected}.keys() == {3, 5, 6, 7, 8, 9, 10, 12}
    reasons = {row.line: row.reason for row in rejected}
    assert reasons[3].startswith("invalid JSON at column 25")
    assert reasons[5] == "key 'document_text' is missing"
    assert reasons[6].startswith("wrong type")
    assert reasons[7] == "the question is empty"
    assert reasons[8] == "a JSON array, not an object"
    assert reasons[9] == "a JSON null, not an object"
    assert "surrogate" in reasons[10]
    assert reasons[12].startswith("duplicate question_id '1000000000000000002'")
    assert all(row.path.endswith("a.jsonl") for row in rejected)


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_duplicates_within_and_across_batches(tmp_path: Path, batch_size: int) -> None:
    path = write(tmp_path / "a.jsonl", jsonl([*pairs(3), *pairs(4)]))
    rejected: list[Any] = []
    dataset = open_dataset(None, path, on_reject=rejected.append)
    for _ in range(2):  # a second scan starts afresh
        rejected.clear()
        frames = list(dataset.scan(batch_size))
        assert all(frame.height <= batch_size for frame in frames)
        assert sum(frame.height for frame in frames) == 4
        assert [row.line for row in rejected] == [4, 5, 6]


def test_rows_without_answer_are_kept(tmp_path: Path) -> None:
    lines = [nq_row(1, answer=[]), nq_row(2, answer=None), nq_row(3, answer=[" ", None]), nq_row(4)]
    rows, rejected = read(write(tmp_path / "a.jsonl", jsonl(lines)))
    assert [row["answers"] for row in rows] == [[], [], [], ["east"]]
    assert not rejected


@pytest.mark.parametrize("kind", ["nq", "simple_qa", "qa_pairs"])
def test_wrong_columns(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.jsonl", jsonl([{"question": "q", "reply": "r"}]))
    with pytest.raises(DataError, match=r"a\.jsonl has no column 'answer'.*question, reply"):
        read(path, kind)
    with pytest.raises(DataError, match=r"'answer'.*nearest: 'reply'.*columns\.answers=reply"):
        read(path)


def test_csv_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"What is the capital of France?,Paris\nWhat is 2+2?,4\n")
    with pytest.raises(DataError, match="If the first line is a row already, put one with the"):
        next(open_dataset(None, path).scan())
    path = write(tmp_path / "b.csv", b"question,gold answer\na?,b\n")
    with pytest.raises(DataError) as caught:
        next(open_dataset(None, path).scan())
    assert "first line" not in str(caught.value)


def test_wrong_columns_in_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"question": ["q"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="'answer'.*parquet with the columns"):
        read(tmp_path / "a.parquet", "nq")


def test_wrong_columns_in_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'answer'.*csv with the columns problem, x"):
        read(write(tmp_path / "a.csv", b"problem,x\n1,2\n"), "simple_qa")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", [None, "qa_pairs", "simple_qa", "nq"])
def test_utf_16(tmp_path: Path, encoding: str, kind: str | None) -> None:
    content = jsonl(pairs(3)).decode().encode(encoding)
    with pytest.raises(DataError, match=r"is UTF-(16|32).*iconv") as raised:
        read(write(tmp_path / "a.jsonl", content), kind)
    named = str(raised.value).split("iconv -f ")[1].split()[0]
    assert content.decode(named) == jsonl(pairs(3)).decode()


def test_mostly_undecodable(tmp_path: Path) -> None:
    line = '{"question": "caf\xe9", "answer": "\xe9"}'.encode("latin-1")
    with pytest.raises(DataError, match="not UTF-8.*Windows-1252"):
        read(write(tmp_path / "a.jsonl", jsonl([line] * 5)), "qa_pairs")


def test_a_table_of_another_encoding(tmp_path: Path) -> None:
    content = "question,answer\nКто?,Пушкин\n".encode("cp1251")
    with pytest.raises(DataError, match="not UTF-8: byte 0xca.*iconv -f ENCODING"):
        read(write(tmp_path / "a.csv", content))


def test_one_undecodable_line_is_rejected_with_its_offset(tmp_path: Path) -> None:
    bad = '{"question": "caf\xe9", "answer": "x"}'.encode("latin-1")
    good = jsonl(pairs(3))
    rows, rejected = read(write(tmp_path / "a.jsonl", good + bad + b"\n" + jsonl(pairs(4)[3:])))
    assert len(rows) == 4
    (row,) = rejected
    assert row.line == 4
    assert row.reason == f"not UTF-8: byte 0xe9 at byte offset {len(good) + 17}"


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + jsonl(pairs(2)).replace(b"\n", b"\r\n")
    rows, rejected = read(write(tmp_path / "a.jsonl.gz", content))
    assert [row["question_id"] for row in rows] == ["r1", "r2"]
    assert not rejected


def test_nothing_usable_gives_the_first_three_reasons(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl([nq_row(n, question="") for n in range(5)]))
    with pytest.raises(DataError, match="all 5 were rejected.*line 3: the question.*and 2 more"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [b'[{"question": "a", "answer": "b"}, {"quest', b'[{"question": "a", "answer": "b"} {}]'],
)
def test_damaged_array_names_line_and_column(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"invalid JSON at line 1, column \d+"):
        read(write(tmp_path / "a.json", content), "qa_pairs")


def test_unbalanced_quote_in_csv(tmp_path: Path) -> None:
    content = simple_qa_csv([simple_qa_row(1)]) + b'{},"open,x,y\r\n'
    rows, rejected = read(write(tmp_path / "a.csv", content))
    assert len(rows) == 1
    assert rejected[0].line == 5 and "invalid CSV" in rejected[0].reason


def test_unknown_kind_and_option(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl(pairs(1)))
    with pytest.raises(ConfigError, match="Did you mean 'simple_qa'"):
        open_dataset("simpel_qa", path)
    with pytest.raises(ConfigError, match="no option 'speed'"):
        open_dataset("nq", path, options={"speed": 1})
    assert open_dataset("nq", path, options={"split": None}).kind == "nq"


def test_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(50))
    monkeypatch.setitem(__import__("sys").modules, "backports.zstd", None)
    if __import__("sys").version_info < (3, 14):
        with pytest.raises(MissingExtraError, match="extra 'zstd': pip install .*backports.zstd"):
            sniff_kind(str(path))
    monkeypatch.undo()
    zstandard = pytest.importorskip("backports.zstd")
    content = b"".join(zstandard.compress(jsonl([row])) for row in pairs(3))
    assert len(read(write(path, content))[0]) == 3
    with pytest.raises(DataError, match="truncated or corrupt|damaged"):
        read(write(path, zstandard.compress(jsonl(pairs(3)))[:-8]), "qa_pairs")


@pytest.mark.parametrize("depth", [100, 450, 900, 5000])
@pytest.mark.parametrize("field", ["answer", "context", "documents", "note"])
def test_values_nested_without_end_cost_their_row_at_most(
    field: str, depth: int, tmp_path: Path
) -> None:
    deep = "[" * depth + "NaN" + "]" * depth
    row = f'{{"question": "q", "{field}": {deep}}}\n'.encode()
    report = check_dataset(str(write(tmp_path / "a.jsonl", row + jsonl(pairs(1)))))
    assert report.rows + report.rejected == 2


@pytest.mark.parametrize("url", ["http://a.example/b.jsonl", "S3://bucket/b.jsonl"])
def test_urls_that_are_not_read(url: str) -> None:
    with pytest.raises(DataError, match="only s3:// and hf://.*Download"):
        open_dataset(None, url)

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slm_vllm.datasets import nq
from slm_vllm.datasets.pages.gold import gold_contexts, title_from_url
from slm_vllm.datasets.pages.tokens import PageTokens
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.datasets.schema import CANONICAL_SCHEMA
from slm_vllm.parallel import Workers
from support.dataset_samples import jsonl, nq_row, read, write
from support.places import sample


def annotation(start: int = -1, end: int = -1, index: int = -1, *short: tuple[int, int]) -> dict:
    return {
        "long_answer": {"start_token": start, "end_token": end, "candidate_index": index},
        "short_answers": [{"start_token": a, "end_token": b} for a, b in short],
    }


def test_raw_row_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.jsonl", jsonl([nq_row()]))
    frame = next(iter(open_dataset("nq", path).scan()))
    assert frame.schema == CANONICAL_SCHEMA
    (row,) = frame.to_dicts()
    assert row["question_id"] == "1000000000000000001"
    assert row["answers"] == ["east"]
    assert row["contexts"] == ["It lies, east"]
    (document,) = row["documents"]
    assert document["title"] == "Oak Isle"
    assert document["text"] == "Oak Isle\n\nIt lies, east\n\nof it."
    assert document["document_id"].startswith("doc-")
    metadata = json.loads(row["metadata"])
    assert metadata["short_answers"] == ["east"]
    assert metadata["title"] == "Oak Isle"


def test_offsets_count_tags_and_candidates_stand_in_for_missing_offsets(tmp_path: Path) -> None:
    second = nq_row(2, annotations=[annotation(-1, -1, 1)])
    both = nq_row(
        3, annotations=[annotation(10, 15, 1), annotation(4, 10, 0), annotation(4, 10, 0)]
    )
    rows, rejected = read(write(tmp_path / "raw.jsonl", jsonl([second, both])))
    assert [row["contexts"] for row in rows] == [["of it."], ["of it.", "It lies, east"]]
    assert not rejected


PAGE = "<P> a </P> <Ul> <Li> b <P> c d </P> </Li> <Li> e </Li> </Ul> f <P> g </P>"


@pytest.mark.parametrize(
    ("short", "context"),
    [((7, 8), "c d"), ((5, 6), "- b\n\nc d"), ((11, 12), "- e"), ((1, 2), "a")],
)
def test_block_around_a_short_answer(short: tuple[int, int], context: str) -> None:
    assert gold_contexts(PageTokens(PAGE), [annotation(-1, -1, -1, short)], list) == [context]


def test_answer_outside_any_block_gets_a_window() -> None:
    (context,) = gold_contexts(PageTokens(PAGE), [annotation(-1, -1, -1, (14, 15))], list)
    assert "f" in context and context.startswith("a")


@pytest.mark.parametrize("offsets", [(4, 99), (9, 4), (-5, 3)])
def test_offsets_outside_the_page_give_no_context(offsets: tuple[int, int]) -> None:
    for index in (-1, 0):
        assert gold_contexts(PageTokens(PAGE), [annotation(*offsets, index, offsets)], list) == []


def test_title_from_url() -> None:
    assert title_from_url("https://en.wikipedia.org/w/index.php?title=A_%C3%A9&oldid=1") == "A é"
    assert title_from_url("https://en.wikipedia.org/wiki/Oak_Island") == "Oak Island"
    assert title_from_url("http://[broken") == ""


def test_ids_without_example_id_are_stable(tmp_path: Path) -> None:
    row = nq_row(example_id=None)
    first, _ = read(write(tmp_path / "a.jsonl", jsonl([row, nq_row(2)])))
    second, _ = read(write(tmp_path / "b.jsonl", jsonl([nq_row(2), row])))
    assert first[0]["question_id"] == second[1]["question_id"]
    assert first[0]["question_id"].startswith("nq-")


def test_same_page_same_document_id(tmp_path: Path) -> None:
    rows, _ = read(write(tmp_path / "a.jsonl", jsonl([nq_row(1), nq_row(2)])))
    assert rows[0]["documents"][0]["document_id"] == rows[1]["documents"][0]["document_id"]


def test_converted_file_of_another_tool_is_cleaned(tmp_path: Path) -> None:
    row = {
        "question": "q",
        "answer": "a",
        "context": "<P> x , y </P>",
        "long_context": [],
        "short_context": ["<P> x </P>"],
        "id": 5,
        "url": "u/wiki/T_x",
        "title": None,
    }
    rows, _ = read(write(tmp_path / "any_name.json", json.dumps([row], indent=2).encode()), "nq")
    assert rows[0]["question_id"] == "5"
    assert rows[0]["contexts"] == ["x"]
    assert rows[0]["documents"][0]["title"] == "T x"
    assert rows[0]["documents"][0]["text"] == "x, y"


def test_real_sample() -> None:
    rows, rejected = read(sample("NQ-open.sample.merged.jsonl.gz"))
    assert len(rows) == 1314 and not rejected
    assert all(row["contexts"] and row["answers"] and row["documents"] for row in rows)


def test_processes_give_the_rows_and_rejections_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [nq_row(n, document_text=f"<H1> P{n} </H1> <P> river , {n} </P>") for n in range(1, 40)]
    lines[5] = nq_row(3)  # a duplicate
    del lines[11]["document_text"]
    lines[17]["annotations"] = "none"
    raw = jsonl(lines).splitlines(keepends=True)
    raw[7], raw[8] = b"{not json\n", b'{"question": "\xff"}\n'
    raw[20:20] = [b"\n", b'{"question": "\\ud800", "answer": ["a"], "document_text": "x"}\n']
    path = write(tmp_path / "raw.jsonl", b"".join(raw))
    monkeypatch.setattr(nq, "_DECODED_BYTES", 2_000)
    monkeypatch.setattr(nq, "usable_cores", lambda: 1)
    alone = read(path)
    monkeypatch.setattr(nq, "usable_cores", lambda: 2)
    monkeypatch.setattr(nq, "_CORES_PAY_BYTES", 3_000)
    started = []
    monkeypatch.setattr(nq, "Workers", lambda *given: started.append(1) or Workers(*given))
    assert read(path) == alone
    assert started and len(alone[1]) == 6

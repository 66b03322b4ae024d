from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.datasets.convert import convert
from slm_vllm.datasets.pages.tokens import PageTokens
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.types import RejectedRow
from support.dataset_samples import jsonl, nq_row, simple_qa_csv, simple_qa_row, write
from support.places import sample

BAD = [b"{", b"[1]", b"\xff", nq_row(1), nq_row(8, question=" "), nq_row(9, document_text=None)]


def both(path: Path, kind: str, **options: Any) -> pl.DataFrame:
    """Reads with and without documents, compares, and gives the former."""
    read: list[tuple[pl.DataFrame, list[RejectedRow]]] = []
    for with_documents in (True, False):
        rejected: list[RejectedRow] = []
        dataset = open_dataset(kind, path, on_reject=rejected.append, options=options)
        frames = list(dataset.scan(3, with_documents=with_documents))
        read.append((pl.concat(frames), rejected))
    (full, rejected), (lean, lean_rejected) = read
    assert lean.schema == full.schema
    assert lean.drop("documents").equals(full.drop("documents"))
    assert lean["documents"].list.len().sum() == 0 < full["documents"].list.len().sum()
    assert lean_rejected == rejected
    return full


def test_nq_raw_and_converted(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.jsonl", jsonl([nq_row(1), nq_row(2), nq_row(3), *BAD]))
    assert both(raw, "nq").height == 4  # a page that is null is kept, a missing one is not
    convert("nq", raw, tmp_path)
    for name in ("json", "parquet"):
        both(tmp_path / f"nq_full_dataset.{name}", "nq")


def test_nq_converted_with_a_page_of_a_wrong_type(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "context": "<P> x", "long_context": ["<P> y , z"]}
    rows = [row, {**row, "question": "r", "context": ["x"]}]
    assert both(write(tmp_path / "a.json", json.dumps(rows).encode()), "nq").height == 1


def test_simple_qa(tmp_path: Path) -> None:
    rows = [simple_qa_row(1), simple_qa_row(2, documents="['a', {'text': ['b']}]")]
    assert both(write(tmp_path / "a.csv", simple_qa_csv(rows)), "simple_qa").height == 2


DOCUMENTS = ["t", ["t", {"text": "u", "id": 3}], {"text": "u", "title": []}, [{"url": {}}], [[]]]


def test_qa_pairs(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": "a", "documents": d} for n, d in enumerate(DOCUMENTS)]
    assert both(write(tmp_path / "a.jsonl", jsonl(rows)), "qa_pairs").height == 5


@pytest.mark.parametrize("documents", [["t", "u"], [["t"], ["u"]], [[{"text": "t"}], []], [1, 2]])
def test_hf(tmp_path: Path, documents: list[Any]) -> None:
    frame = {"question": ["q", "r"], "answers": ["a", "b"], "documents": documents}
    pl.DataFrame(frame).write_parquet(tmp_path / "a.parquet")
    assert both(tmp_path / "a.parquet", "hf").height == 2


def test_documents_of_no_use_cost_no_row(tmp_path: Path) -> None:
    documents = [[{"page": 3, "text": None}, {"page": 4, "text": "t"}], None]
    pl.DataFrame(
        {"question": ["q", "r"], "answers": ["a", "b"], "documents": documents}
    ).write_parquet(tmp_path / "a.parquet")
    frame = both(tmp_path / "a.parquet", "hf")
    assert [[d["text"] for d in row] for row in frame["documents"].to_list()] == [["t"], []]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("NQ-open.sample.merged.jsonl.gz", "nq"), ("simple_qa.sample.csv", "simple_qa")],
)
def test_real_samples(name: str, kind: str) -> None:
    both(sample(name), kind)


BLANKS = st.sampled_from([" ", "  ", "\n", "\t", "\xa0", "\u2003", "\u3000", "\x1c", "\x85"])


@given(st.lists(st.one_of(BLANKS, st.sampled_from(["a", "é", "<P>", "😀"]))), st.data())
def test_page_tokens_are_those_of_split(parts: list[str], data: st.DataObject) -> None:
    page = "".join(parts)
    tokens, expected = PageTokens(page), page.split()
    assert [tokens[at] for at in range(len(tokens))] == expected
    start = data.draw(st.integers(0, len(expected)))
    end = data.draw(st.integers(start, len(expected) + 2))
    assert tokens.text(start, end) == " ".join(expected[start:end])

"""Destroyed answers and their causes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slm_vllm.reporting.harm import Harm, harms
from slm_vllm.reporting.pairing import paired_datasets
from slm_vllm.reporting.run_view import view_runs
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run


def passage(rank: int, text: str) -> dict[str, Any]:
    return {
        "passage_id": f"d{rank}:0",
        "document_id": f"d{rank}",
        "title": "",
        "text": text,
        "score": 1.0,
        "rank": rank,
    }


WITH_ANSWER = passage(1, "The capital is Oslo.")
WITHOUT = passage(2, "Bergen is a city by the sea.")
# What the run with context said to a question whose answer is Oslo, and why it is wrong.
LOST: list[tuple[str, dict[str, Any]]] = [
    ("absent", {"prediction": "Bergen", "contexts": [WITHOUT]}),
    ("unused", {"prediction": "Paris", "contexts": [WITH_ANSWER, WITHOUT]}),
    ("copied", {"prediction": "Bergen", "contexts": [WITH_ANSWER, WITHOUT]}),
    ("unused", {"prediction": "capital", "contexts": [WITH_ANSWER, WITHOUT]}),
    ("cut", {"prediction": "Let me", "contexts": [WITH_ANSWER], "finish_reason": "length"}),
    (
        "cut",
        {"prediction": "Bergen", "contexts": [WITHOUT], "truncated": True,
         "search": {"answer_mrr": 0.5}, "n_passages_used": 1},
    ),
    ("failed", {"prediction": "", "error": "too long", "contexts": [WITH_ANSWER]}),
    ("unknown", {"prediction": "Bergen", "contexts": []}),
    ("absent", {"prediction": "Bergen", "contexts": [], "search": {"answer_mrr": 0.0}}),
]  # fmt: skip


def found(folder: Path, closed: list[dict[str, Any]], searched: list[dict[str, Any]]) -> list[Harm]:
    for row in (*closed, *searched):
        row["answers"] = ["Oslo"]
    make_run(folder / "closed", mode="no_context", rows=closed)
    make_run(folder / "searched", mode="retriever", rows=searched)
    runs = [load_run(folder / name) for name in ("searched", "closed")]
    return harms(paired_datasets(view_runs(runs)))


def test_every_destroyed_answer_has_its_cause(tmp_path: Path) -> None:
    right, wrong = {"token_recall": 1.0}, {"token_recall": 0.0}
    closed = [dict(right) for _ in LOST] + [right | {}, wrong | {}, {"token_recall": None}]
    searched = [{**wrong, **row} for _, row in LOST] + [right | {}, right | {}, wrong | {}]
    (harm,) = found(tmp_path, closed, searched)
    assert (harm.run, harm.closed_book) == ("searched", "closed")
    assert harm.rows == tuple(range(len(LOST)))
    assert harm.causes == tuple(cause for cause, _ in LOST)
    assert (harm.right_closed_book, harm.gained) == (len(LOST) + 1, 1)


def test_a_limit_that_the_closed_book_answer_met_too_is_no_cause(tmp_path: Path) -> None:
    closed = [{"token_recall": 1.0, "finish_reason": "length"}] * 2
    lost = {"token_recall": 0.5, "finish_reason": "length", "contexts": [WITH_ANSWER]}
    (harm,) = found(tmp_path, [dict(row) for row in closed], [dict(lost), dict(lost)])
    assert harm.causes == ("unused", "unused")


def test_rows_are_found_by_question_and_not_by_place(tmp_path: Path) -> None:
    closed = [{"question_id": str(n), "token_recall": float(n == 2)} for n in range(3)]
    searched = [
        {"question_id": str(n), "question": f"What is number {n}?", "contexts": [WITHOUT]}
        for n in (2, 1, 0)
    ]
    (harm,) = found(tmp_path, closed, searched)
    assert harm.rows == (0,)

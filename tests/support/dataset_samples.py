"""Small files in the layouts that users have."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.registry import open_dataset
from slm_vllm.types import RejectedRow

Row = dict[str, Any]


def nq_row(number: int = 1, **changes: Any) -> Row:
    #        0    1    2     3   4   5  6 7    8   9 10 11 12  13
    page = "<H1> Oak Isle </H1> <P> It lies , east </P> <P> of it . </P>"
    row = {
        "question": f"where is oak isle {number}",
        "answer": ["east"],
        "document_text": page,
        "long_answer_candidates": [
            {"start_token": 4, "end_token": 10},
            {"start_token": 10, "end_token": 15},
        ],
        "annotations": [
            {
                "long_answer": {"start_token": 4, "end_token": 10, "candidate_index": 0},
                "short_answers": [{"start_token": 8, "end_token": 9}],
            }
        ],
        "document_url": "https://en.wikipedia.org/w/index.php?title=Oak_Isle&oldid=7",
        "example_id": 10**18 + number,
    }
    return {**row, **changes}


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows
    )


def simple_qa_csv(rows: list[Row]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["metadata", "problem", "answer", "documents"])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def simple_qa_row(number: int = 1, **changes: Any) -> Row:
    metadata = {"topic": "Art", "answer_type": "Person", "urls": [f"https://x.org/{number}"]}
    row = {
        "metadata": repr(metadata),
        "problem": f"Who painted picture {number}?",
        "answer": f"Painter {number}",
        "documents": f"Line one of {number}.\n\nPainter {number} did it.",
    }
    return {**row, **changes}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(
    path: Path, kind: str | None = None, **options: Any
) -> tuple[list[Row], list[RejectedRow]]:
    rejected: list[RejectedRow] = []
    frames = list(open_dataset(kind, path, on_reject=rejected.append, options=options).scan())
    return pl.concat(frames).to_dicts(), rejected

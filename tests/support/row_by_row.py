"""What a dataset gives of a file, and what its `row` alone would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slm_vllm.datasets.file_dataset import FileDataset
from slm_vllm.datasets.qa_pairs import QaPairsDataset
from slm_vllm.datasets.registry import open_dataset
from slm_vllm.errors import DataError
from slm_vllm.types import RejectedRow

Scanned = tuple[list[dict[str, Any]], list[RejectedRow], list[str], str]


def scanned(path: Path, batch_size: int, with_documents: bool, **options: Any) -> Scanned:
    """Rows, what is rejected, notices, and the error that ends it."""
    rejected: list[RejectedRow] = []
    rows: list[dict[str, Any]] = []
    error = ""
    dataset = None
    try:
        dataset = open_dataset("qa_pairs", path, on_reject=rejected.append, options=options)
        for frame in dataset.scan(batch_size, with_documents=with_documents):
            assert 0 < frame.height <= batch_size
            rows += frame.to_dicts()
    except DataError as problem:
        error = str(problem)
    rejected.sort(key=lambda row: (row.line, row.reason))
    return rows, rejected, dataset.notices if dataset else [], error


def row_by_row(*args: Any, **options: Any) -> Scanned:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QaPairsDataset, "frames", FileDataset.frames)
        return scanned(*args, **options)


def assert_same(path: Path, batch_size: int, with_documents: bool, **options: Any) -> None:
    arguments = (path, batch_size, with_documents)
    assert scanned(*arguments, **options) == row_by_row(*arguments, **options)

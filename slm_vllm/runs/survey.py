"""A first look at the dataset: how many rows, and how long the longest prompts will be.

It runs while vLLM is imported. A dataset that cannot be used is found out here, before a model
is loaded.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from slm_vllm.datasets.base import BaseDataset
from slm_vllm.prompting.renderer import PromptInput
from slm_vllm.types import Passage

BATCH_ROWS = 256
_KEPT = 16
_HASH_WHOLE_BYTES = 1 << 28
_HASH_ENDS_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass over a dataset found.

    Attributes:
        rows: Usable rows, up to the run's limit.
        longest_questions: The rows with the longest questions.
        longest_contexts: The rows with the longest question and gold contexts together.
    """

    rows: int
    longest_questions: tuple[PromptInput, ...]
    longest_contexts: tuple[PromptInput, ...]


def limited_scan(
    dataset: BaseDataset, max_rows: int | None, *, with_documents: bool = False
) -> Iterator[pl.DataFrame]:
    """The dataset's frames, up to `max_rows` rows in all.

    Documents cost the most to read (whole pages), so they are left out unless asked for.
    """
    left = max_rows
    size = BATCH_ROWS if max_rows is None else min(BATCH_ROWS, max_rows)
    for frame in dataset.scan(size, with_documents=with_documents):
        if left is None:
            yield frame
            continue
        yield frame.head(left)
        left -= frame.height
        if left <= 0:
            return


def survey(frames: Iterable[pl.DataFrame]) -> Survey:
    """Looks at every row once.

    Args:
        frames: Canonical rows.
    """
    rows = order = 0
    by_question: list[tuple[int, int, PromptInput]] = []
    by_context: list[tuple[int, int, PromptInput]] = []
    for frame in frames:
        sized = frame.select(
            "question",
            "contexts",
            pl.col("question").str.len_bytes().alias("asked"),
            (
                pl.col("question").str.len_bytes()
                + pl.col("contexts").list.eval(pl.element().str.len_bytes()).list.sum()
            ).alias("whole"),
        )
        rows += frame.height
        for column, heap in (("asked", by_question), ("whole", by_context)):
            for question, contexts, size in (
                sized.top_k(_KEPT, by=column).select("question", "contexts", column).iter_rows()
            ):
                order += 1  # entries of equal size are told apart by it
                passages = context_passages("", contexts) if column == "whole" else ()
                entry = (size, order, PromptInput(question, passages))
                heapq.heappush(heap, entry)
                if len(heap) > _KEPT:
                    heapq.heappop(heap)
    return Survey(rows, tuple(e[2] for e in by_question), tuple(e[2] for e in by_context))


def context_passages(question_id: str, contexts: list[str]) -> tuple[Passage, ...]:
    """A row's gold contexts as passages without title."""
    return tuple(
        Passage(f"{question_id}#gold{number}", "", "", text)
        for number, text in enumerate(contexts, start=1)
        if text.strip()
    )


def dataset_identity(path: str) -> dict[str, Any]:
    """Path, size and hash of a dataset file, for the manifest and the index store.

    Of a file over 256 MiB only the ends are hashed, beside its size and time of change.
    """
    file = Path(path)
    if "://" in path or not file.is_file():
        return {"path": path}
    status = file.stat()
    whole = status.st_size <= _HASH_WHOLE_BYTES
    sha = hashlib.sha256()
    with file.open("rb") as stream:
        if whole:
            while chunk := stream.read(1 << 20):
                sha.update(chunk)
        else:
            sha.update(stream.read(_HASH_ENDS_BYTES))
            stream.seek(-_HASH_ENDS_BYTES, 2)
            sha.update(stream.read(_HASH_ENDS_BYTES))
            sha.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return {
        "path": str(file.resolve()),
        "bytes": status.st_size,
        "sha256" if whole else "sha256_of_ends": sha.hexdigest(),
    }

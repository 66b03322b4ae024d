"""First pass over a dataset: counts rows and finds the longest prompts.

It runs while vLLM is imported, so that a dataset that cannot be used is reported before a model
is loaded.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from slm_vllm.datasets.schema import gold_passages
from slm_vllm.prompting.renderer import PromptInput

_KEPT = 16


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass over a dataset found.

    Attributes:
        rows: Usable rows, up to the run's limit.
        with_contexts: Those that have gold contexts.
        longest_questions: The rows with the longest questions.
        longest_contexts: The rows with the longest question and gold contexts together.
    """

    rows: int
    with_contexts: int
    longest_questions: tuple[PromptInput, ...]
    longest_contexts: tuple[PromptInput, ...]


def survey(frames: Iterable[pl.DataFrame]) -> Survey:
    """Looks at every row once.

    Args:
        frames: Canonical rows.
    """
    rows = with_contexts = order = 0
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
        with_contexts += int((frame["contexts"].list.len() > 0).sum())
        for column, heap in (("asked", by_question), ("whole", by_context)):
            for question, contexts, size in (
                sized.top_k(_KEPT, by=column).select("question", "contexts", column).iter_rows()
            ):
                order += 1  # entries of equal size are told apart by it
                passages = gold_passages("", contexts) if column == "whole" else ()
                entry = (size, order, PromptInput(question, passages))
                heapq.heappush(heap, entry)
                if len(heap) > _KEPT:
                    heapq.heappop(heap)
    return Survey(
        rows,
        with_contexts,
        tuple(e[2] for e in by_question),
        tuple(e[2] for e in by_context),
    )

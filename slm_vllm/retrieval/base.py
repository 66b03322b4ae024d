"""`BaseRetriever`: the interface of a retriever."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.errors import SlmVllmError
from slm_vllm.retrieval.passage_store import PassageStore
from slm_vllm.types import RetrievedPassage

SEARCH_ONLY = {"search_only": True}
"""Metadata of an option that changes how an index is searched or built, not what it holds."""


class IndexCancelled(SlmVllmError):
    """Building an index was asked to stop. What was done is kept where it can be resumed."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The best passages of a batch of questions, best first.

    Attributes:
        indices: int64 of shape (n_questions, k), positions in the passage store, -1 for none.
        scores: float32 of the same shape, -inf where there is no passage.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def empty(cls, n_questions: int, k: int) -> SearchResult:
        """A result without any passage."""
        shape = (n_questions, k)
        return cls(np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))

    def padded(self, k: int) -> SearchResult:
        """The same with room for k passages, where the store has fewer."""
        room = ((0, 0), (0, k - self.indices.shape[1]))
        return SearchResult(
            np.pad(self.indices, room, constant_values=-1),
            np.pad(self.scores, room, constant_values=-np.inf),
        )


@dataclass(frozen=True, slots=True)
class BuildMonitor:
    """How a build reports where it is and learns that it should stop.

    Attributes:
        progress: Called with a phase, what is done of it, and its size where that is known.
        cancelled: Asked now and then; True ends the build.
    """

    progress: Callable[[str, int, int | None], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def report(self, phase: str, done: int, total: int | None = None) -> None:
        """Tells the progress, and stops here when cancelled.

        Raises:
            IndexCancelled: The build should stop.
        """
        if self.cancelled is not None and self.cancelled():
            raise IndexCancelled(f"Building the index was cancelled while {phase}")
        if self.progress is not None:
            self.progress(phase, done, total)


@dataclass(frozen=True)
class NoOptions:
    """For retrievers that have nothing to set."""


class BaseRetriever(ABC):
    """A searchable set of passages. Searching is thread-safe.

    Args:
        passages: The passages that results point into.
        fingerprint: Names content and settings of the index; equal fingerprints, equal results.
    """

    kind: ClassVar[str]
    """The word that names this class in a retriever YAML (`retriever.kind`)."""
    options_class: ClassVar[type] = NoOptions
    """A frozen dataclass of what `retriever.options` may hold."""

    def __init__(self, passages: PassageStore, fingerprint: str) -> None:
        self.passages = passages
        self.fingerprint = fingerprint

    @abstractmethod
    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """Finds the best passages of each question.

        Ties go to the passage that comes first in the store. Where fewer than `top_k` passages
        match, the rest is -1.

        Raises:
            ValueError: `top_k` is below 1.
        """

    @property
    def plain(self) -> BaseRetriever:
        """The search for the question alone, without what models add before and after it."""
        return self

    def queries(self, rows: pl.DataFrame) -> list[str]:
        """What is searched for with canonical rows: their questions, unless a model adds to it."""
        questions: list[str] = rows["question"].to_list()
        return questions

    def search_rows(self, rows: pl.DataFrame, top_k: int) -> SearchResult:
        """Finds the best passages for the questions of canonical rows.

        By default what `search` finds; a retriever that knows the questions by their ids, or is
        made of others, has its own.
        """
        return self.search(rows["question"].to_list(), top_k)

    def retrieve_rows(
        self, rows: pl.DataFrame, top_k: int, min_score: float | None = None
    ) -> list[list[RetrievedPassage]]:
        """As `retrieve`, for the questions of canonical rows."""
        return self._looked_up(self.search_rows(rows, top_k), min_score)

    def retrieve(
        self, questions: Sequence[str], top_k: int, min_score: float | None = None
    ) -> list[list[RetrievedPassage]]:
        """Searches and looks the passages up.

        Args:
            questions: Any text, empty strings included.
            top_k: At most this many passages for each question.
            min_score: Passages with a lower score are left out.
        """
        if not questions:
            return []
        return self._looked_up(self.search(questions, top_k), min_score)

    def _looked_up(
        self, result: SearchResult, min_score: float | None
    ) -> list[list[RetrievedPassage]]:
        keep = result.indices >= 0
        if min_score is not None:
            keep &= result.scores >= min_score
        found = iter(self.passages.take(result.indices[keep]))
        scores = result.scores.tolist()
        return [
            [
                RetrievedPassage(next(found), score, rank)
                for rank, score in enumerate(
                    (s for s, kept in zip(row, row_keep, strict=True) if kept), start=1
                )
            ]
            for row, row_keep in zip(scores, keep.tolist(), strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Facts about the index for manifests and `index info`."""
        return {
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "n_passages": len(self.passages),
        }

    def close(self) -> None:
        """Releases files and models. The retriever cannot be used afterwards."""
        self.passages.close()


class StoredRetriever(BaseRetriever):
    """A retriever that keeps an index of its own in a folder of the index store.

    Making it opens the files that `build` wrote, memory-mapped where they are large.

    Args:
        passages: See `BaseRetriever`.
        fingerprint: See `BaseRetriever`.
        folder: What `build` filled.
        options: An instance of `options_class`.
    """

    version: ClassVar[int] = 1
    """Raised when the files of older builds can no longer be read."""
    layout: ClassVar[int] = 1
    """Raised when `build` writes the same index in other files; those of others are built again.

    Unlike `version` it is no part of the fingerprint, so the answers given by an index stay valid.
    """
    resumable: ClassVar[bool] = False
    """Whether `build` can resume what an interrupted build left in the folder."""

    def __init__(
        self, passages: PassageStore, fingerprint: str, folder: Path, options: Any
    ) -> None:
        super().__init__(passages, fingerprint)

    @classmethod
    def settled(cls, options: Any, passages: PassageStore) -> Any:
        """The options with what they leave to the passages and the machine put in."""
        return options

    @classmethod
    def identity(cls, options: Any) -> dict[str, Any]:
        """What of the options decides the content of the index (part of the fingerprint)."""
        skipped = {f.name for f in fields(options) if f.metadata.get("search_only")}
        return {key: value for key, value in asdict(options).items() if key not in skipped}

    @classmethod
    def passages_identity(cls, passages: PassageStore) -> dict[str, Any]:
        """What decides the content of the index beyond options and the passages' fingerprint."""
        return {}

    @classmethod
    @abstractmethod
    def build(
        cls, folder: Path, passages: PassageStore, options: Any, monitor: BuildMonitor
    ) -> None:
        """Writes the files of a new index into an empty folder.

        With `resumable`, the folder may hold what an interrupted build of the same fingerprint
        left there.
        """


class CompositeRetriever(BaseRetriever):
    """A retriever made of others, with no files of its own."""

    @classmethod
    @abstractmethod
    def components(cls, config: RetrieverConfig, options: Any) -> list[RetrieverConfig]:
        """The configurations of the retrievers it is made of."""

    @classmethod
    @abstractmethod
    def combine(cls, parts: Sequence[BaseRetriever], options: Any) -> CompositeRetriever:
        """Joins opened parts, in the order of `components`."""


class StagedRetriever(BaseRetriever):
    """Another retriever, with something done before or after its search.

    Args:
        first: The other.
        settings: What is done, in a text that is equal for equal results.
    """

    def __init__(self, first: BaseRetriever, settings: str) -> None:
        super().__init__(first.passages, fingerprint_of(f"{first.fingerprint};{settings}"))
        self.kind = first.kind  # type: ignore[misc]
        self._first = first

    @property
    def plain(self) -> BaseRetriever:
        """See `BaseRetriever.plain`."""
        return self._first.plain

    def queries(self, rows: pl.DataFrame) -> list[str]:
        """See `BaseRetriever.queries`."""
        return self._first.queries(rows)

    def describe(self) -> dict[str, Any]:
        """See `BaseRetriever.describe`: the other's, under the fingerprint of both."""
        return {**self._first.describe(), "fingerprint": self.fingerprint}

    def close(self) -> None:
        """Closes the other."""
        self._first.close()


def fingerprint_of(settings: str) -> str:
    """A short name for what decides the results of a search."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def check_top_k(top_k: int) -> None:
    """Refuses a top_k that asks for nothing.

    Raises:
        ValueError: `top_k` is below 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")


def pad_result(
    rows: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], k: int
) -> SearchResult:
    """Joins results of different length, one (indices, scores) pair for each question."""
    result = SearchResult.empty(len(rows), k)
    for i, (indices, scores) in enumerate(rows):
        result.indices[i, : len(indices)] = indices
        result.scores[i, : len(scores)] = scores
    return result


def best_first(
    indices: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of one question's candidates; equal scores in the order of their index."""
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = scores >= threshold
        indices, scores = indices[keep], scores[keep]
    order = np.lexsort((indices, -scores))[:k]
    return indices[order], scores[order]

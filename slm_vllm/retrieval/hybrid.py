"""Two searches in one, by words and by meaning."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.errors import ConfigError
from slm_vllm.retrieval.base import (
    BaseRetriever,
    CompositeRetriever,
    SearchResult,
    check_top_k,
)
from slm_vllm.retrieval.fusion import fuse, min_max, reciprocal_rank


@dataclass(frozen=True, slots=True)
class HybridOptions:
    """What `retriever.options` of kind `hybrid` may hold.

    Attributes:
        retrievers: The two kinds to join.
        fusion: `convex` adds up scores scaled to 0..1, `rrf` adds up reciprocal ranks.
        weights: What each retriever counts for, in the order of `retrievers`.
        k: The constant of reciprocal rank fusion.
        depth: Passages taken from each search before joining.
        components: Options of the parts, by kind: `{dense: {model: ...}}`.
    """

    retrievers: tuple[str, str] = ("bm25", "dense")
    fusion: Literal["convex", "rrf"] = "convex"
    weights: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.3, 0.7)
    k: Annotated[float, Field(ge=0)] = 60
    depth: Annotated[int, Field(ge=1)] = 100
    components: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.retrievers)) < 2:
            raise ValueError(
                f"retrievers must be two different kinds, not {self.retrievers[0]} twice"
            )
        if sum(self.weights) <= 0:
            raise ValueError("weights must not both be 0")
        for kind in self.components:
            if kind not in self.retrievers:
                raise ValueError(
                    f"components has options for '{kind}', which is not one of the retrievers "
                    f"{', '.join(self.retrievers)}"
                )


class HybridRetriever(CompositeRetriever):
    """Searches with two retrievers and joins their rankings (`slm_vllm.retrieval.fusion`)."""

    kind: ClassVar[str] = "hybrid"
    options_class: ClassVar[type] = HybridOptions

    def __init__(self, parts: Sequence[BaseRetriever], options: HybridOptions) -> None:
        joined = ",".join(part.fingerprint for part in parts)
        settings = f"{options.fusion},{options.weights},{options.k},{options.depth}"
        fingerprint = hashlib.sha256(f"{joined};{settings}".encode()).hexdigest()[:16]
        super().__init__(parts[0].passages, fingerprint)
        self._parts, self._options = list(parts), options

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`.

        Scores are sums: up to 1 for convex fusion of weights that add up to 1, up to 2 / (k + 1)
        for reciprocal ranks of weight 1.
        """
        return self._joined(lambda part, depth: part.search(questions, depth), top_k)

    def search_rows(self, rows: pl.DataFrame, top_k: int) -> SearchResult:
        """See `BaseRetriever.search_rows`."""
        return self._joined(lambda part, depth: part.search_rows(rows, depth), top_k)

    def _joined(
        self, search: Callable[[BaseRetriever, int], SearchResult], top_k: int
    ) -> SearchResult:
        check_top_k(top_k)
        depth = max(self._options.depth, top_k)
        results = [search(part, depth) for part in self._parts]
        if self._options.fusion == "rrf":
            shares = [reciprocal_rank(result, self._options.k) for result in results]
        else:
            shares = [min_max(result) for result in results]
        return fuse(results, shares, self._options.weights, top_k)

    def describe(self) -> dict[str, Any]:
        """See `BaseRetriever.describe`; adds the parts."""
        return {**super().describe(), "parts": [part.describe() for part in self._parts]}

    def close(self) -> None:
        """Closes the parts."""
        for part in self._parts:
            part.close()

    @classmethod
    def components(cls, config: RetrieverConfig, options: HybridOptions) -> list[RetrieverConfig]:
        """Both parts cut documents in the same way, so they share one store of passages."""
        for kind in options.retrievers:
            if kind == cls.kind:
                raise ConfigError("retriever.options.retrievers: a hybrid cannot be part of one")
        return [
            RetrieverConfig(
                name=kind,
                kind=kind,
                passage=config.passage,
                options=options.components.get(kind, {}),
            )
            for kind in options.retrievers
        ]

    @classmethod
    def combine(cls, parts: Sequence[BaseRetriever], options: HybridOptions) -> HybridRetriever:
        """Joins the opened parts."""
        return cls(parts, options)

"""Hybrid retrieval: several searches fused, such as BM25 and dense."""

from __future__ import annotations

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
    fingerprint_of,
)
from slm_vllm.retrieval.fusion import fuse, min_max, reciprocal_rank


@dataclass(frozen=True, slots=True)
class HybridOptions:
    """What `retriever.options` of kind `hybrid` may hold.

    Attributes:
        retrievers: The kinds to join, two or more.
        fusion: `convex` adds up scores scaled to 0..1, `rrf` adds up reciprocal ranks.
        weights: What each retriever counts for, in the order of `retrievers`.
        k: The constant of reciprocal rank fusion.
        depth: Passages taken from each search before joining.
        components: Options of the parts, by kind: `{dense: {model: ...}}`. A part with a `kind`
            among its options may have any name, so that one kind can be joined twice:
            `{e5: {kind: dense, model: ...}}`.
    """

    retrievers: tuple[str, ...] = ("bm25", "dense")
    fusion: Literal["convex", "rrf"] = "convex"
    weights: tuple[Annotated[float, Field(ge=0)], ...] = (0.3, 0.7)
    k: Annotated[float, Field(ge=0)] = 60
    depth: Annotated[int, Field(ge=1)] = 100
    components: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.retrievers if self.retrievers.count(name) > 1})
        if twice or len(self.retrievers) < 2:
            found = f"{twice[0]} twice" if twice else f"only {', '.join(self.retrievers) or 'none'}"
            raise ValueError(f"retrievers must be two or more different ones, not {found}")
        if len(self.weights) != len(self.retrievers):
            raise ValueError(
                f"weights must be as many as retrievers, {len(self.retrievers)}, not "
                f"{len(self.weights)}"
            )
        if sum(self.weights) <= 0:
            raise ValueError("weights must not all be 0")
        for kind in self.components:
            if kind not in self.retrievers:
                raise ValueError(
                    f"components has options for '{kind}', which is not one of the retrievers "
                    f"{', '.join(self.retrievers)}"
                )


class HybridRetriever(CompositeRetriever):
    """Searches with several retrievers and joins their rankings (`slm_vllm.retrieval.fusion`)."""

    kind: ClassVar[str] = "hybrid"
    options_class: ClassVar[type] = HybridOptions

    def __init__(self, parts: Sequence[BaseRetriever], options: HybridOptions) -> None:
        joined = ",".join(part.fingerprint for part in parts)
        settings = f"{options.fusion},{options.weights},{options.k},{options.depth}"
        super().__init__(parts[0].passages, fingerprint_of(f"{joined};{settings}"))
        self._parts, self._options = list(parts), options

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`.

        Scores are sums: up to 1 for convex fusion of weights that add up to 1, up to n / (k + 1)
        for the reciprocal ranks of n searches of weight 1.
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
        """All parts cut documents in the same way, so they share one store of passages."""
        parts = []
        for name in options.retrievers:
            own = dict(options.components.get(name, {}))
            kind = str(own.pop("kind", name))
            if kind == cls.kind:
                raise ConfigError("retriever.options.retrievers: a hybrid cannot be part of one")
            parts.append(RetrieverConfig(name=name, kind=kind, passage=config.passage, options=own))
        return parts

    @classmethod
    def combine(cls, parts: Sequence[BaseRetriever], options: HybridOptions) -> HybridRetriever:
        """Joins the opened parts."""
        return cls(parts, options)

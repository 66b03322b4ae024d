"""Query expansion: searches with the question and a text that a model wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from slm_vllm.retrieval.base import BaseRetriever, SearchResult, StagedRetriever


class ExpandedRetriever(StagedRetriever):
    """Any retriever, asked for questions with a text added to each.

    A passage that would answer the question shares words with the ones that do, whether or not it
    is right (Gao et al., "Precise zero-shot dense retrieval without relevance labels", 2022; for
    searches by words, with the question repeated: Wang et al., "Query2doc", 2023).

    Args:
        first: Searches.
        added: The text for each of some questions; empty where there is none.
        repeat: How often the question stands before it.
        identity: Equal for retrievers whose texts are made in the same way.
    """

    def __init__(
        self,
        first: BaseRetriever,
        added: Callable[[Sequence[str]], Sequence[str]],
        repeat: int,
        identity: str,
    ) -> None:
        super().__init__(first, f"{identity};{repeat}")
        self._added, self._repeat = added, repeat

    def queries(self, rows: pl.DataFrame) -> list[str]:
        """See `BaseRetriever.queries`."""
        return self._with_added(rows["question"].to_list())

    def search(self, questions: Sequence[str], top_k: int) -> SearchResult:
        """See `BaseRetriever.search`."""
        return self._first.search(self._with_added(questions), top_k)

    def search_rows(self, rows: pl.DataFrame, top_k: int) -> SearchResult:
        """See `BaseRetriever.search_rows`."""
        queries = pl.Series("question", self.queries(rows), pl.String)
        return self._first.search_rows(rows.with_columns(queries), top_k)

    def _with_added(self, questions: Sequence[str]) -> list[str]:
        return [
            " ".join([question] * self._repeat + [text]) if text else question
            for question, text in zip(questions, self._added(questions), strict=True)
        ]

"""The context of a prompt: one class for each value of `experiment_mode.context`.

A new mode is a class here, a name in `_CONTEXTS` and a YAML file in `configs/experiment_mode/`.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from slm_vllm.config.schema import Config, RetrieverConfig
from slm_vllm.datasets.schema import gold_passages
from slm_vllm.errors import DataError
from slm_vllm.plugins import Registry
from slm_vllm.prompting.renderer import PromptRenderer
from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.evaluation import score_search, search_frame
from slm_vllm.retrieval.qrels import Qrels
from slm_vllm.runs.survey import Survey
from slm_vllm.scoring.metrics import NDCG_DEPTH, PLAIN
from slm_vllm.types import RetrievedPassage

# A prompt with fewer bytes can still have more tokens (another script).
_MARGIN = 1.25
# Generous, so that a passage of long words still fits: English needs 1.3.
_TOKENS_PER_WORD = 2.5
_TITLE_TOKENS = 40


@dataclass(frozen=True, slots=True)
class RowContext:
    """What one row's prompt may show.

    Attributes:
        passages: Best first; the prompt takes as many as fit.
        search: How good the search was, as a JSON object, or None where nothing was searched.
        query: What was searched for, where that is not the question.
    """

    passages: Sequence[RetrievedPassage] = ()
    search: str | None = None
    query: str | None = None


class Context(ABC):
    """A mode.

    Class attributes:
        name: The value of `experiment_mode.context`; also `context_type` of each prediction.
        searches: Whether it needs a retrieval index.
        uses_gold: Whether a row's own contexts are in its prompt, and so part of its identity.

    Args:
        config: The run's configuration.
        retriever: Searches, where `searches` is true.
    """

    name: ClassVar[str]
    searches: ClassVar[bool] = False
    uses_gold: ClassVar[bool] = False

    def __init__(self, config: Config, retriever: BaseRetriever | None = None) -> None:
        self._config = config
        self._retriever = retriever
        self.seconds = 0.0
        """Time spent searching."""
        self.qrels = Qrels()
        """What a search is judged by; the run sets that of its corpus."""

    @abstractmethod
    def rows(self, frame: pl.DataFrame) -> list[RowContext]:
        """What each row of a canonical frame may show, in the frame's order."""

    @classmethod
    def longest_prompt(cls, config: Config, found: Survey, renderer: PromptRenderer) -> int:
        """An upper bound of the run's prompts in tokens.

        Args:
            config: The run's configuration.
            found: The survey of its dataset.
            renderer: One whose budget is all that the model takes.
        """
        return with_margin(renderer.longest(found.longest_questions))


class NoContext(Context):
    """Closed book: the question alone."""

    name = "none"

    def rows(self, frame: pl.DataFrame) -> list[RowContext]:
        """See `Context.rows`."""
        return [RowContext()] * frame.height


class OracleContext(Context):
    """The dataset's own gold contexts."""

    name = "oracle"
    uses_gold = True

    def rows(self, frame: pl.DataFrame) -> list[RowContext]:
        """See `Context.rows`."""
        return [
            RowContext(
                [
                    RetrievedPassage(passage, 1.0, rank)
                    for rank, passage in enumerate(gold_passages(question_id, contexts), start=1)
                ]
            )
            for question_id, contexts in frame.select("question_id", "contexts").iter_rows()
        ]

    @classmethod
    def longest_prompt(cls, config: Config, found: Survey, renderer: PromptRenderer) -> int:
        """See `Context.longest_prompt`."""
        asked = (*found.longest_questions, *found.longest_contexts)
        return with_margin(renderer.longest(asked))


class RetrieverContext(Context):
    """Passages that a search finds in the dataset's documents, or in a corpus."""

    name = "retriever"
    searches = True

    def rows(self, frame: pl.DataFrame) -> list[RowContext]:
        """See `Context.rows`; the frame needs its documents where the search is judged by them."""
        assert self._retriever is not None
        started = time.monotonic()
        settings, retriever = self._config.retriever, self._retriever
        found = retriever.retrieve_rows(frame, search_depth(self._config), settings.min_score)
        metrics = self._judged(frame, found)
        if retriever.plain is not retriever:
            before = self._judged(frame, retriever.plain.retrieve_rows(frame, NDCG_DEPTH))
            kept = [name for name in before.columns if "recall" not in name]
            metrics = metrics.hstack(before.select(pl.col(kept).name.prefix(PLAIN)))
        queries: Sequence[str | None] = [None] * frame.height
        if settings.expansion is not None:
            queries = retriever.queries(frame)
        rows = [
            RowContext(
                ranked[: settings.top_k],
                json.dumps({name: value for name, value in row.items() if value is not None}),
                query,
            )
            for ranked, row, query in zip(
                found, metrics.iter_rows(named=True), queries, strict=True
            )
        ]
        self.seconds += time.monotonic() - started
        return rows

    def _judged(
        self, frame: pl.DataFrame, found: Sequence[Sequence[RetrievedPassage]]
    ) -> pl.DataFrame:
        assert self._retriever is not None
        aliases = self._retriever.passages.aliases
        answers, judged = frame["answers"].to_list(), self.qrels.of(frame)
        return score_search(search_frame(found, answers, judged, aliases))

    @classmethod
    def longest_prompt(cls, config: Config, found: Survey, renderer: PromptRenderer) -> int:
        """See `Context.longest_prompt`."""
        question = super().longest_prompt(config, found, renderer)
        return question + found_tokens(config.retriever)


_CONTEXTS = Registry(
    key="experiment_mode.context",
    noun="context",
    group="slm_vllm.contexts",
    base=Context,  # type: ignore[type-abstract]
    built_in={
        context.name: f"{__name__}:{context.__name__}"
        for context in (NoContext, OracleContext, RetrieverContext)
    },
    attributes=("name",),
    arguments=("config", "retriever"),
)


def context_of(config: Config) -> type[Context]:
    """The class of a run's mode.

    Raises:
        ConfigError: There is none of that name.
    """
    return _CONTEXTS.find(config.experiment_mode.context)


def check_gold(config: Config, rows: int, with_contexts: int) -> None:
    """Refuses `oracle`, or a mode derived from it, where there are no gold contexts at all.

    Args:
        config: The run's configuration.
        rows: Rows of its dataset that are asked.
        with_contexts: Those that have gold contexts.

    Raises:
        DataError: Its figures would be those of another mode.
    """
    if rows and not with_contexts and issubclass(context_of(config), OracleContext):
        raise DataError(
            f"{config.dataset.path}: none of the {rows} rows has a context, and mode "
            f"{config.experiment_mode.name} shows nothing else. Say which column holds them with "
            "dataset.options.columns.contexts=COLUMN, or take another mode (--mode no_context)"
        )


def found_tokens(retriever: RetrieverConfig) -> int:
    """An upper bound of what a search adds to a prompt, in tokens."""
    return retriever.top_k * passage_tokens(retriever)


def passage_tokens(retriever: RetrieverConfig) -> int:
    """An upper bound of one passage, in tokens."""
    return int(retriever.passage.size * _TOKENS_PER_WORD) + _TITLE_TOKENS


def search_depth(config: Config) -> int:
    """How many passages are searched for: more than are shown, to judge the search by."""
    return max(config.retriever.top_k, NDCG_DEPTH)


def with_margin(tokens: int) -> int:
    """The length of a longest prompt with room for one of another script."""
    return int(tokens * _MARGIN)

"""Stages in which the evaluated model is asked before passages are known.

A search itself asks nothing: it looks the replies up. So a resumed run finds the same passages and
pays for no reply twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

import polars as pl

from slm_vllm.config.schema import Config
from slm_vllm.errors import EngineError
from slm_vllm.parallel import in_order
from slm_vllm.prompting.renderer import PromptInput
from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.expansion import ExpandedRetriever
from slm_vllm.retrieval.reranker import CrossEncoderScorer, RerankingRetriever
from slm_vllm.runs.auxiliary import AuxiliaryRequests
from slm_vllm.runs.cell import Cell
from slm_vllm.runs.cell_rows import Plan
from slm_vllm.runs.contexts import passage_tokens, search_depth, with_margin
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.runs.services import Services
from slm_vllm.runs.stages.expander import Expander, expansion_prompt
from slm_vllm.runs.stages.stage import NO_PASSAGE, Stage, StagePrompt
from slm_vllm.runs.stages.yes_no_scorer import YesNoScorer, yes_no_prompt
from slm_vllm.runs.survey import Survey
from slm_vllm.types import Completion

# Rows whose prompts are made together; a question has one text to be written and many passages.
_EXPANDED_ROWS, _RERANKED_ROWS = 4096, 256
_SEARCHED_AHEAD = 2  # of these, while passages are asked about
_COUNTS = ("asked", "from_cache", "failed", "prompt_tokens", "completion_tokens")
_WITHOUT = {
    "expand": "They are searched for by the question alone",
    "rerank": "Their passages are left out",
}

Item = TypeVar("Item")


class SearchStages:
    """The stages of one cell.

    Args:
        cell: Its configuration names at least one of them.
        first: The index, opened.
        host: The engine of the run.
        tokenizer: A fast transformers tokenizer.
        revision: The commit or content hash of the weights.
        services: Console, signals and clock of the command, which close what they open.

    Attributes:
        retriever: Searches with all of them.
        seconds: Time that this process spent asking, by stage.
    """

    def __init__(
        self,
        cell: Cell,
        first: BaseRetriever,
        host: EngineHost,
        tokenizer: Any,
        revision: str,
        services: Services,
    ) -> None:
        self._cell, self._services, stack = cell, services, services.stack
        config = cell.config
        expansion, reranker = config.retriever.expansion, config.retriever.reranker
        self.seconds: dict[str, float] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._expander: Expander | None = None
        self._reranked: tuple[RerankingRetriever, YesNoScorer] | None = None
        self.retriever = first
        if expansion is not None:
            prompt = expansion_prompt(expansion, config.prompt, tokenizer)
            self._expander = Expander(config, prompt, host, revision, stack)
            texts, identity = self._expander.texts, self._expander.identity
            self.retriever = ExpandedRetriever(first, texts, expansion.repeat, identity)
        if reranker is not None and reranker.is_evaluated:
            scorer = YesNoScorer(
                config, yes_no_prompt(config.prompt, tokenizer), host, revision, stack
            )
            reranking = RerankingRetriever(self.retriever, reranker, scorer)
            self._reranked = reranking, scorer
            self.retriever = reranking
        elif reranker is not None:
            scored = CrossEncoderScorer(reranker)
            stack.callback(scored.close)
            self.retriever = RerankingRetriever(self.retriever, reranker, scored)

    def prepare(self, plan: Plan) -> None:
        """Asks what the search for open rows needs and nobody has replied to yet.

        Raises:
            EngineError: The engine cannot be started, died twice, or replies to nothing.
            Interrupted: A signal came; what was replied is kept.
        """
        if self._expander is not None:
            with self._services.phase("expand", self.seconds, self._cell.name):
                done = 0
                for rows in self._open(plan, _EXPANDED_ROWS):
                    done += rows.height
                    place = _place(rows.height, done, plan)
                    self._ask("expand", place, self._expander, rows["question"].to_list())
        if self._reranked is not None:
            reranking, scorer = self._reranked
            depth = search_depth(self._cell.config)
            found = in_order(
                ThreadPoolExecutor(1),
                lambda rows: (rows.height, reranking.pairs(rows, depth)),
                self._open(plan, _RERANKED_ROWS),
                _SEARCHED_AHEAD,
            )
            phase = self._services.phase("rerank", self.seconds, self._cell.name)
            with phase, closing(found):
                done = 0
                for n_rows, pairs in found:
                    done += n_rows
                    self._ask("rerank", _place(n_rows, done, plan), scorer, pairs)

    def figures(self) -> dict[str, dict[str, float]]:
        """What `results.json` says of them: this process's own work, by stage."""
        return {
            name: {**{key: counts[key] for key in _COUNTS}, "seconds": round(seconds, 3)}
            for name, seconds in self.seconds.items()
            if (counts := self._counts.get(name)) is not None
        }

    def _ask(self, name: str, place: str, stage: Stage[Item], items: Iterable[Item]) -> None:
        """Asks what has no reply yet.

        Raises:
            EngineError: A request failed under `experiment.strict`, or all that this process sent.
        """
        cell, reason = self._cell, ""

        def record(key: int, item: Item, reply: Completion) -> None:
            nonlocal reason
            stage.record(key, item, reply)
            reason = reply.error or reason
            if reply.error is not None and cell.config.experiment.strict:
                raise EngineError(f"{cell.name}: {name}: {reason} (experiment.strict=true)")
            if cell.progress is not None:
                cell.state.beat(cell.progress.figures)

        counts = self._counts.setdefault(name, Counter())
        before = counts["failed"]
        label = f"{cell.name}: {name}"
        AuxiliaryRequests(stage, self._services, f"{label}{place}", record, counts).ask(
            stage.keyed(items)
        )
        if counts["asked"] and counts["failed"] >= counts["asked"] + counts["from_cache"]:
            raise EngineError(
                f"{label}: not one of {counts['asked']:,} prompts was answered. The last one said: "
                f"{reason}"
            )
        if failures := counts["failed"] - before:
            message = f"{label} failed for {failures:,} prompts ({reason}). {_WITHOUT[name]}"
            self._services.console.say(message)

    def _open(self, plan: Plan, size: int) -> Iterator[pl.DataFrame]:
        """The open rows of a plan, so many at a time."""
        seen = 0
        for frame in self._cell.questions.scan():
            is_open = plan.open[seen : (seen := seen + frame.height)]
            if len(is_open) < frame.height:
                return  # the dataset grew meanwhile: whoever asks its rows says so
            rows = frame.filter(pl.Series(is_open))
            for start in range(0, rows.height, size):
                yield rows[start : start + size]


def _place(n_rows: int, done: int, plan: Plan) -> str:
    """How far a part of so many rows goes, for the user; nothing where it is the whole."""
    if n_rows == plan.pending:
        return ""
    return f" up to question {done:,} of {plan.pending:,}"


def longest_auxiliary_prompt(config: Config, tokenizer: Any, found: Survey, limit: int) -> int:
    """An upper bound of the prompts of all stages in tokens, with what their replies take more.

    Args:
        config: A configuration with at least one of them.
        tokenizer: A fast transformers tokenizer.
        found: The survey of its dataset.
        limit: Tokens that the model takes.

    Raises:
        ConfigError: A stage cannot be asked of this model.
    """
    expansion, reranker = config.retriever.expansion, config.retriever.reranker
    longest = 0
    if expansion is not None:
        prompt = expansion_prompt(expansion, config.prompt, tokenizer)
        more = max(0, expansion.max_new_tokens - config.generation.max_new_tokens)
        longest = _longest(prompt, found.longest_questions, limit) + more
    if reranker is not None and reranker.is_evaluated:
        prompt = yes_no_prompt(config.prompt, tokenizer)
        shown = [replace(one, passages=(NO_PASSAGE,)) for one in found.longest_questions]
        tokens = _longest(prompt, shown, limit) + passage_tokens(config.retriever)
        longest = max(longest, tokens)
    return longest


def _longest(prompt: StagePrompt, shown: Iterable[PromptInput], limit: int) -> int:
    return with_margin(prompt.renderer(limit).longest(list(shown)))

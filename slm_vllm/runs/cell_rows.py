"""The rows of a cell: from rows to prompts to journaled answers."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.config.schema import Config
from slm_vllm.engines.base import BaseEngine
from slm_vllm.errors import DataError, EngineError
from slm_vllm.parallel import in_order
from slm_vllm.prompting.answer import extract_answer
from slm_vllm.prompting.renderer import PromptInput, PromptRenderer
from slm_vllm.rundir.fingerprint import row_keys
from slm_vllm.rundir.journal import Journal
from slm_vllm.runs.answer_cache import AnswerCache, batches
from slm_vllm.runs.contexts import Context, RowContext
from slm_vllm.runs.progress import Progress
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.types import (
    Completion,
    GenerationRequest,
    RenderedPrompt,
    RetrievedPassage,
    Sample,
    ThinkingBlock,
)

# Few rows at first, so that the first question does not wait for the search of many.
_FIRST_ROWS, _MOST_ROWS = 64, 512
# Rows are searched for in a thread of its own while prompts are made of those before them.
_SEARCHED_AHEAD = 2
_LOOKED_UP = 1 << 16
_LINE_COLUMNS = ("question_id", "question", "answers", "metadata")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows a run has, and which of them have no answer yet.

    Attributes:
        keys: A key for each row, in the order of the dataset: uint64, shape (rows,).
        open: Whether it has no answer: bool, shape (rows,).
    """

    keys: npt.NDArray[np.uint64]
    open: npt.NDArray[np.bool_]

    @property
    def pending(self) -> int:
        """Rows that have no answer yet."""
        return int(self.open.sum())

    def within(self, rows: npt.NDArray[np.bool_]) -> Plan:
        """The same with no rows open but these."""
        return Plan(self.keys, self.open & rows)


@dataclass(slots=True)
class _Awaited:
    """A row whose answer is awaited: all of its journal line that is known beforehand."""

    question_id: str
    question: str
    answers: list[str]
    metadata: str
    passages: Sequence[RetrievedPassage]
    prompt: RenderedPrompt
    search: str | None
    query: str | None


class CellRows:
    """The rows of a cell: which are open, their prompts, and what became of them.

    Args:
        config: The configuration of the cell.
        questions: Its rows.
        context: What its prompts show beside the question.
        fingerprint: See `answer_fingerprint`.
        renderer: Makes its prompts.
        journal: Open for appending.
        cache: Answers of other runs, and a place for those of this one.
        retry_errors: Ask again what had failed in an earlier run.

    Attributes:
        from_cache: Answers that other runs had given.
    """

    def __init__(
        self,
        config: Config,
        questions: QuestionSet,
        context: Context,
        fingerprint: str,
        renderer: PromptRenderer,
        journal: Journal,
        cache: AnswerCache | None = None,
        *,
        retry_errors: bool = False,
    ) -> None:
        self._config = config
        self._questions = questions
        self._context = context
        if context.searches:
            context.qrels = questions.qrels
        self._fingerprint, self._renderer = fingerprint, renderer
        self._journal = journal
        self._cache = cache
        self._retry_errors = retry_errors
        self._awaited: dict[str, _Awaited] = {}
        self._refused: list[Completion] = []
        self._failed: list[int] = []  # keys of rows whose request failed in this run
        self._stop = threading.Event()
        self.from_cache = 0

    @property
    def search_seconds(self) -> float:
        """Time spent searching; overlaps with the engine's work."""
        return self._context.seconds

    def plan(self) -> Plan:
        """Passes over the rows and looks each up in the journal; asks nothing."""
        frames = self._questions.scan()
        keys = np.concatenate([np.empty(0, np.uint64), *(self._row_keys(f) for f in frames)])
        answered = self._journal.keys(with_failed=not self._retry_errors)
        if self._failed:
            answered = np.sort(np.concatenate([answered, np.array(self._failed, np.uint64)]))
        return Plan(keys, ~_are_in(keys, answered))

    def take_from_cache(self, plan: Plan) -> Plan:
        """Journals the answers that other runs have given.

        The prompts are made here and, those that stay open, once more for the engine: so a run
        whose answers are all known needs no engine, and no queue grows while it waits for one.

        Returns:
            What is left to do.
        """
        if self._cache is None or not plan.pending:
            return plan
        for batch in batches(self.requests(plan)):
            for completion in self._cache.find(batch):
                self._record(completion)
                self.from_cache += 1
            self._forget()
        return self.plan()

    def again(self, journal: Journal) -> CellRows:
        """The same rows with another journal: none of them is answered yet."""
        return CellRows(
            self._config,
            self._questions,
            self._context,
            self._fingerprint,
            self._renderer,
            journal,
        )

    def stop(self) -> None:
        """Asks no more; what is in flight still comes."""
        self._stop.set()

    def requests(self, plan: Plan) -> Iterator[GenerationRequest]:
        """Prompts of the open rows; runs in the engine's prefetch thread.

        Raises:
            DataError: The dataset is another than the plan was made for.
        """
        open_rows = self._open_rows(plan)
        searched = in_order(ThreadPoolExecutor(1), self._searched, open_rows, _SEARCHED_AHEAD)
        with closing(searched):
            for frame, keys, contexts in searched:
                for request in self._requests(frame, keys, contexts):
                    if self._stop.is_set():
                        return
                    yield request

    def _open_rows(self, plan: Plan) -> Iterator[tuple[pl.DataFrame, list[int]]]:
        """The open rows and their keys, some at a time."""
        seen, size = 0, _FIRST_ROWS
        # A search may be judged by the rows' documents.
        judged = self._context.searches and self._context.qrels.needs_documents
        kept = self._questions.keeps(with_documents=judged)
        for frame in self._questions.scan(with_documents=judged):
            rows = slice(seen, seen := seen + frame.height)
            keys, is_open = plan.keys[rows], plan.open[rows]
            if not kept and not np.array_equal(self._row_keys(frame), keys):
                raise self._changed()
            open_keys = keys[is_open].tolist()
            todo = frame.filter(pl.Series(is_open))
            while todo.height:
                yield todo[:size], open_keys[:size]
                todo, open_keys = todo[size:], open_keys[size:]
                size = min(2 * size, _MOST_ROWS)
        if seen != len(plan.keys):
            raise self._changed()

    def _searched(
        self, rows: tuple[pl.DataFrame, list[int]]
    ) -> tuple[pl.DataFrame, list[int], list[RowContext]]:
        frame, keys = rows
        return frame, keys, self._context.rows(frame)

    def answers(
        self,
        engine: BaseEngine,
        plan: Plan,
        progress: Progress,
        *,
        one_at_a_time: bool = False,
    ) -> Generator[Completion, None, None]:
        """Runs the engine over all open rows; each completion is journaled when it is yielded.

        Args:
            engine: Started.
            plan: Says which rows are open.
            progress: Counts the answers.
            one_at_a_time: Wait for each answer before the next row is asked.

        Raises:
            EngineError: The engine died, or a request failed under `--strict`.
            StorageError: The journal cannot be written.
        """
        self._forget()  # what was in flight in an engine that died
        requests = self.requests(plan)
        stream = _one_at_a_time(engine, requests) if one_at_a_time else engine.stream(requests)
        with closing(stream) as completions:
            for completion in completions:
                if self._cache is not None:
                    prompt = self._awaiting(completion.request_id).prompt
                    self._cache.add(prompt.token_ids, completion)
                yield self._record(completion, progress)
                yield from self._record_refused(progress)
        yield from self._record_refused(progress)

    def check_answered(self, plan: Plan) -> None:
        """Checks that the engine left no open row out, which would be missing from the figures.

        Raises:
            EngineError: It did.
        """
        left = int((plan.open & ~_are_in(plan.keys, self._journal.keys())).sum())
        if left:
            raise EngineError(
                f"the engine ended without an answer to {left} of {len(plan.keys)} questions. The "
                "same command asks them"
            )

    def _row_keys(self, frame: pl.DataFrame) -> npt.NDArray[np.uint64]:
        return row_keys(frame, self._fingerprint, with_contexts=self._context.uses_gold)

    def _forget(self) -> None:
        self._awaited.clear()
        self._refused.clear()

    def _changed(self) -> DataError:
        return DataError(
            f"{self._questions.path}: its rows changed while the run was reading them. Give the "
            "same command again: answers to rows that are still there are kept"
        )

    def _requests(
        self, frame: pl.DataFrame, keys: list[int], contexts: list[RowContext]
    ) -> Iterator[GenerationRequest]:
        names, questions, answers, metadata = (frame[name].to_list() for name in _LINE_COLUMNS)
        prompts = self._renderer.stream(
            [
                PromptInput(question, tuple(p.passage for p in context.passages))
                for question, context in zip(questions, contexts, strict=True)
            ]
        )
        lines = zip(names, questions, answers, metadata, strict=True)
        for key, line, context, prompt in zip(keys, lines, contexts, prompts, strict=True):
            request_id = f"{key:016x}"
            self._awaited[request_id] = _Awaited(
                *line, context.passages, prompt, context.search, context.query
            )
            if prompt.error is None:
                yield GenerationRequest(request_id, prompt.token_ids, self._renderer.turns(prompt))
            else:
                refused = Completion(request_id, "", "error", 0, 0, error=prompt.error)
                self._refused.append(refused)

    def _awaiting(self, request_id: str) -> _Awaited:
        if request_id not in self._awaited:
            raise EngineError(
                f"the engine answered request {request_id}, which waits for no answer: it was "
                "answered before or never made. Each request is answered once, under its own id"
            )
        return self._awaited[request_id]

    def _record_refused(self, progress: Progress) -> Iterator[Completion]:
        while self._refused:
            yield self._record(self._refused.pop(), progress)

    def _record(self, completion: Completion, progress: Progress | None = None) -> Completion:
        asked = self._awaiting(completion.request_id)
        del self._awaited[completion.request_id]
        if completion.error is not None and self._config.experiment.strict:
            raise EngineError(
                f"question {asked.question_id}: {completion.error} (experiment.strict=true "
                "ends the run here; without it the row is counted as an error)"
            )
        if completion.error is not None:
            self._failed.append(int(completion.request_id, 16))
        opened = None if completion.is_whole else asked.prompt.opened
        answer = extract_answer(completion.text, opened)
        samples = [_sample(sample, asked.prompt.opened) for sample in completion.samples]
        self._journal.append(
            {
                "key": completion.request_id,
                "question_id": asked.question_id,
                "question": asked.question,
                "answers": asked.answers,
                "prediction": answer.text,
                "completion": None if completion.text == answer.text else completion.text,
                "contexts": [p.to_json() for p in _shown(asked.passages, asked.prompt)],
                "context_type": self._context.name,
                "n_passages_used": asked.prompt.n_passages_used,
                "truncated": asked.prompt.truncated,
                "unterminated_thinking": answer.unterminated_thinking
                or any(sample["unterminated_thinking"] for sample in samples),
                "finish_reason": completion.finish_reason,
                "n_prompt_tokens": completion.n_prompt_tokens,
                "n_completion_tokens": completion.n_completion_tokens,
                "error": completion.error,
                "search": asked.search,
                "metadata": asked.metadata,
                "samples": samples,
                "query": asked.query,
            }
        )
        if progress is not None:
            progress.add(answer.text, asked.answers, completion)
        return completion


def _shown(
    passages: Sequence[RetrievedPassage], prompt: RenderedPrompt
) -> Sequence[RetrievedPassage]:
    """The passages as they stand in a prompt, a cut one without the rest of its text."""
    if prompt.cut is None:
        return passages[: prompt.n_passages_used]
    text = passages[0].passage.text[: prompt.cut]
    return [replace(passages[0], passage=replace(passages[0].passage, text=text))]


def _sample(sample: Sample, opened: ThinkingBlock | None) -> dict[str, Any]:
    """One of several answers, as the journal keeps it."""
    answer = extract_answer(sample.text, None if sample.is_whole else opened)
    return {
        "prediction": answer.text,
        "completion": None if sample.text == answer.text else sample.text,
        "unterminated_thinking": answer.unterminated_thinking,
        "finish_reason": sample.finish_reason,
        "n_completion_tokens": sample.n_completion_tokens,
        "seed": sample.seed,
        "logprob": sample.logprob,
    }


def _are_in(keys: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether each key is one of `known`, sorted, in a part of the memory that np.isin takes."""
    found = np.zeros(len(keys), dtype=bool)
    for start in range(0, len(keys) if len(known) else 0, _LOOKED_UP):
        part = keys[start : start + _LOOKED_UP]
        at = np.minimum(np.searchsorted(known, part), len(known) - 1)
        found[start : start + _LOOKED_UP] = known[at] == part
    return found


def _one_at_a_time(
    engine: BaseEngine, requests: Iterator[GenerationRequest]
) -> Generator[Completion, None, None]:
    for request in requests:
        yield from engine.stream([request])

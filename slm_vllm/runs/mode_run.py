"""One mode of a run: rows in, prompts to the engine, answers to the journal."""

from __future__ import annotations

import json
import threading
import time
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from slm_vllm.config.schema import Config
from slm_vllm.datasets.base import BaseDataset
from slm_vllm.engines.base import BaseEngine
from slm_vllm.errors import EngineError
from slm_vllm.prompting.answer import extract_answer
from slm_vllm.prompting.renderer import PromptInput, PromptRenderer
from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.evaluation import score_search, search_frame
from slm_vllm.rundir.fingerprint import row_keys
from slm_vllm.rundir.journal import Journal
from slm_vllm.runs.answer_cache import AnswerCache
from slm_vllm.runs.progress import Progress
from slm_vllm.runs.survey import context_passages, limited_scan
from slm_vllm.types import Completion, GenerationRequest, RenderedPrompt, RetrievedPassage

# nDCG@10 needs ten results, whether or not the prompt uses so many.
_SEARCH_DEPTH = 10
_CUT_OFFS = (1, 3, 5, 10)
_CACHE_BATCH = 256


@dataclass(frozen=True, slots=True)
class _Asked:
    """A row whose answer is awaited: all of its journal line that is known beforehand."""

    key: int
    row: dict[str, Any]
    passages: list[RetrievedPassage]
    prompt: RenderedPrompt
    search: str | None


class ModeRun:
    """The rows of one mode, and what became of them.

    Args:
        config: The configuration of this mode.
        fingerprint: See `answer_fingerprint`.
        journal: Open for appending.
        retriever: For the retriever mode.
        cache: Answers of other runs, and a place for those of this one.
        retry_errors: Ask again what had failed in an earlier run.
    """

    def __init__(
        self,
        config: Config,
        fingerprint: str,
        journal: Journal,
        retriever: BaseRetriever | None = None,
        cache: AnswerCache | None = None,
        *,
        retry_errors: bool = False,
    ) -> None:
        self._config = config
        self._context = config.experiment_mode.context
        self._fingerprint = fingerprint
        self._journal = journal
        self._retriever = retriever
        self._cache = cache
        self._retry_errors = retry_errors
        self._answered = journal.keys(with_failed=not retry_errors)
        self._recorded = 0
        self._keys = array("Q")
        self._asked: dict[str, _Asked] = {}
        self._refused: list[Completion] = []
        self._stop = threading.Event()
        self.retrieval_seconds = 0.0
        self.resumed = 0
        self.from_cache = 0

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """Keys of the rows seen so far, in the order of the dataset."""
        return np.array(self._keys, dtype=np.uint64)

    def pending(self, dataset: BaseDataset) -> int:
        """How many rows have no answer yet."""
        frames = limited_scan(dataset, self._config.max_samples)
        return sum(int((~self._has_answer(self._row_keys(frame))).sum()) for frame in frames)

    def take_from_cache(self, dataset: BaseDataset, renderer: PromptRenderer) -> None:
        """Journals the answers that other runs have given; the other rows stay pending.

        The prompts are made here and, those that stay, once more for the engine: so a run whose
        answers are all known needs no engine, and no queue grows while it waits for one.
        """
        if self._cache is None:
            return
        requests = self.requests(dataset, renderer)
        while batch := list(islice(requests, _CACHE_BATCH)):
            for completion in self._cache.find(batch):
                self._record(completion)
                self.from_cache += 1
            self._asked.clear()
            self._refused.clear()
        self.start_over()

    def start_over(self) -> None:
        """Forgets what was in flight in a dead engine; what was answered stays answered."""
        self._answered = self._journal.keys(with_failed=not self._retry_errors)
        self._asked.clear()
        self._refused.clear()

    def stop(self) -> None:
        """Asks no more; what is in flight still comes."""
        self._stop.set()

    def requests(
        self, dataset: BaseDataset, renderer: PromptRenderer
    ) -> Iterator[GenerationRequest]:
        """Prompts of the rows that have no answer yet; runs in the engine's prefetch thread."""
        self._keys, self.resumed = array("Q"), -self._recorded
        # A search is judged by the documents it should find.
        frames = limited_scan(
            dataset, self._config.max_samples, with_documents=self._retriever is not None
        )
        for frame in frames:
            keys = self._row_keys(frame)
            self._keys.extend(keys.tolist())
            answered = self._has_answer(keys)
            self.resumed += int(answered.sum())
            todo = frame.filter(pl.Series(~answered))
            for request in self._ask(todo, keys[~answered].tolist(), renderer):
                if self._stop.is_set():
                    return
                yield request

    def answers(
        self, engine: BaseEngine, dataset: BaseDataset, renderer: PromptRenderer, progress: Progress
    ) -> Generator[Completion, None, None]:
        """Runs the engine over all pending rows; each completion is journaled when it is yielded.

        Raises:
            EngineError: The engine died, or a request failed under `--strict`.
            StorageError: The journal cannot be written.
        """
        with closing(engine.stream(self.requests(dataset, renderer))) as completions:
            for completion in completions:
                if self._cache is not None:
                    prompt = self._asked[completion.request_id].prompt
                    self._cache.add(prompt.token_ids, completion)
                yield self._record(completion, progress)
                yield from self._record_refused(progress)
        yield from self._record_refused(progress)

    def _row_keys(self, frame: pl.DataFrame) -> npt.NDArray[np.uint64]:
        return row_keys(frame, self._fingerprint, with_contexts=self._context == "oracle")

    def _has_answer(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        if not len(self._answered):
            return np.zeros(len(keys), dtype=np.bool_)
        places = np.minimum(np.searchsorted(self._answered, keys), len(self._answered) - 1)
        return np.asarray(self._answered[places] == keys)

    def _ask(
        self, frame: pl.DataFrame, keys: list[int], renderer: PromptRenderer
    ) -> Iterator[GenerationRequest]:
        if frame.is_empty():
            return
        searches, passages = self._passages(frame)
        rows = frame.drop("documents").rows(named=True)
        inputs = [
            PromptInput(row["question"], tuple(found.passage for found in ranked))
            for row, ranked in zip(rows, passages, strict=True)
        ]
        prompts = renderer.render(inputs)
        for key, row, ranked, prompt, search in zip(
            keys, rows, passages, prompts, searches, strict=True
        ):
            name = f"{key:016x}"
            self._asked[name] = _Asked(key, row, ranked, prompt, search)
            if prompt.error is None:
                yield GenerationRequest(name, prompt.token_ids, renderer.turns(prompt))
            else:
                self._refused.append(Completion(name, "", "error", 0, 0, error=prompt.error))

    def _passages(
        self, frame: pl.DataFrame
    ) -> tuple[list[str | None], list[list[RetrievedPassage]]]:
        """Search metrics (as JSON) and passages of each row."""
        if self._context == "oracle":
            gold = [
                [
                    RetrievedPassage(passage, 1.0, rank)
                    for rank, passage in enumerate(context_passages(question_id, contexts), start=1)
                ]
                for question_id, contexts in frame.select("question_id", "contexts").iter_rows()
            ]
            return [None] * frame.height, gold
        if self._context == "retriever" and self._retriever is not None:
            return self._search(self._retriever, frame)
        return [None] * frame.height, [[] for _ in range(frame.height)]

    def _search(
        self, retriever: BaseRetriever, frame: pl.DataFrame
    ) -> tuple[list[str | None], list[list[RetrievedPassage]]]:
        started = time.monotonic()
        settings = self._config.retriever
        found = retriever.retrieve(
            frame["question"].to_list(), max(settings.top_k, _SEARCH_DEPTH), settings.min_score
        )
        aliases = retriever.passages.aliases
        gold = [
            [
                aliases.get(document["document_id"], document["document_id"])
                for document in documents
            ]
            for documents in frame["documents"].to_list()
        ]
        metrics = score_search(search_frame(found, frame["answers"].to_list(), gold), _CUT_OFFS)
        searches = [
            json.dumps({name: value for name, value in row.items() if value is not None})
            for row in metrics.iter_rows(named=True)
        ]
        self.retrieval_seconds += time.monotonic() - started
        return [*searches], [ranked[: settings.top_k] for ranked in found]

    def _record_refused(self, progress: Progress) -> Iterator[Completion]:
        while self._refused:
            yield self._record(self._refused.pop(), progress)

    def _record(self, completion: Completion, progress: Progress | None = None) -> Completion:
        asked = self._asked.pop(completion.request_id)
        if completion.error is not None and self._config.experiment.strict:
            raise EngineError(
                f"question {asked.row['question_id']}: {completion.error} (experiment.strict=true "
                "ends the run here; without it the row is counted as an error)"
            )
        answer = extract_answer(completion.text)
        self._journal.append(
            {
                "key": completion.request_id,
                "question_id": asked.row["question_id"],
                "question": asked.row["question"],
                "answers": asked.row["answers"],
                "prediction": answer.text,
                "completion": None if completion.text == answer.text else completion.text,
                "contexts": [p.to_json() for p in asked.passages[: asked.prompt.n_passages_used]],
                "context_type": self._config.experiment_mode.context,
                "n_passages_used": asked.prompt.n_passages_used,
                "truncated": asked.prompt.truncated,
                "unterminated_thinking": answer.unterminated_thinking,
                "finish_reason": completion.finish_reason,
                "n_prompt_tokens": completion.n_prompt_tokens,
                "n_completion_tokens": completion.n_completion_tokens,
                "error": completion.error,
                "search": asked.search,
                "metadata": asked.row["metadata"],
            }
        )
        if completion.error is None or not self._retry_errors:
            self._recorded += 1
        if progress is not None:
            progress.add(answer.text, asked.row["answers"], completion)
        return completion

"""One cell of a command: a model, a dataset, a mode, and the run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from slm_vllm.config.schema import Config
from slm_vllm.errors import SlmVllmError
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.rundir.fingerprint import digest
from slm_vllm.rundir.folder import RunFolder
from slm_vllm.rundir.journal import Journal
from slm_vllm.rundir.state import RunState
from slm_vllm.runs.contexts import Context
from slm_vllm.runs.progress import Progress
from slm_vllm.runs.question_set import QuestionSet
from slm_vllm.tracking.recorder import NullRecorder


@dataclass(eq=False)
class Cell:
    """What a session knows about one of its runs.

    Attributes:
        config: Its configuration.
        context: What its prompts show beside the question.
        folder: Its run folder, locked.
        state: Its `state.json`.
        questions: Its dataset; cells that ask the same rows share one.
        journal: Set when the model is resolved, as is `template`.
        template: How its prompts are made.
        facts: What its answers depend on beside its configuration and its rows.
        progress: How far its questions are, once it asks them.
        error: Why it failed, or None.
        result: The content of its `results.json`, set at its end.
        recorder: Tells the tracker what happens.
    """

    config: Config
    context: type[Context]
    folder: RunFolder
    state: RunState
    questions: QuestionSet
    journal: Journal = field(init=False)
    template: PromptTemplate = field(init=False)
    result: dict[str, Any] = field(init=False)
    facts: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    error: SlmVllmError | None = None
    recorder: NullRecorder = field(default_factory=NullRecorder)

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.config.experiment.name

    @property
    def searches(self) -> bool:
        """Whether it needs a retrieval index."""
        return self.error is None and self.context.searches

    @property
    def asks_before_search(self) -> bool:
        """Whether the model is asked before passages are known."""
        return self.searches and self.config.retriever.asks_model

    @property
    def index_key(self) -> str:
        """Equal for cells that search the same index."""
        settings = self.config.retriever
        built = settings.model_dump(exclude={"name", "top_k", "min_score", "expansion"})
        if settings.asks_model:  # see `open_index`
            built["reranker"] = None
        return digest([self.questions.corpus.key, built])

    def failure(self) -> dict[str, Any]:
        """What stands in place of its results."""
        assert self.error is not None
        return {"name": self.name, "error": str(self.error), "exit_code": self.error.exit_code}

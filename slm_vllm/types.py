"""The data passed between the stages of a run: one small frozen dataclass for each arrow.

    dataset.scan() -> retriever.search() -> prompt.render() -> engine.stream() -> journal.append()

Rows travel in polars frames of the schemas below, single items in the dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DOCUMENT_FIELDS = ("document_id", "title", "text")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that a retriever can return.

    Attributes:
        passage_id: Unique within an index.
        document_id: The document it was cut from.
        title: Title of that document, may be empty.
        text: The passage itself, without HTML tokens.
        start: Offset of the passage in its cleaned document, in characters.
    """

    passage_id: str
    document_id: str
    title: str
    text: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class RetrievedPassage:
    """A passage with the score and the rank (1 is best) a retriever gave it."""

    passage: Passage
    score: float
    rank: int

    def to_json(self) -> dict[str, Any]:
        """The flat form that the journal and the prediction files keep."""
        return {
            "passage_id": self.passage.passage_id,
            "document_id": self.passage.document_id,
            "title": self.passage.title,
            "text": self.passage.text,
            "score": round(float(self.score), 6),
            "rank": self.rank,
        }


@dataclass(frozen=True, slots=True)
class ThinkingBlock:
    """The two markers around a model's thoughts."""

    opening: str
    closing: str


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as the engine takes it.

    Attributes:
        token_ids: The whole prompt, special tokens included; empty when `error` is set.
        n_passages_used: How many of the offered passages are in it, the best ones first.
        truncated: Whether a passage was left out or cut to fit the context budget.
        error: Why the question cannot be asked (it alone is over the budget), or None.
        user_turn: What of it is the user's turn, as text.
        opened: The thinking block that it leaves open, or None: the answer begins behind its end.
        cut: How many characters of the first passage it shows, where those are not all.
    """

    token_ids: list[int]
    n_passages_used: int = 0
    truncated: bool = False
    error: str | None = None
    user_turn: str = ""
    opened: ThinkingBlock | None = None
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class AuxiliaryTask:
    """How an auxiliary request (a judge, a reranker, a query expansion) is answered: greedily.

    Attributes:
        max_new_tokens: Longest answer.
        either: Token ids of two words, each in the forms it may take. Then the answer is the
            `Completion.margin` between them as the next token.
    """

    max_new_tokens: int = 1
    either: tuple[tuple[int, ...], tuple[int, ...]] | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt for an engine, named by an id unique within the stream.

    Attributes:
        request_id: The name.
        prompt_token_ids: The whole prompt.
        turns: The same as a chat (role, content), for servers that put it together themselves.
        auxiliary: How it is answered if it is not one of the run's questions; None: as the run's
            settings say.
    """

    request_id: str
    prompt_token_ids: list[int]
    turns: Sequence[Mapping[str, str]] = ()
    auxiliary: AuxiliaryTask | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One of several answers to a request, or one with its probability.

    Attributes:
        text: As in `Completion`, as are `finish_reason` and `is_whole`.
        n_completion_tokens: New tokens; None where a server does not count them by answer.
        seed: Of its sampling, None where it was not sampled.
        logprob: Sum of the log-probabilities of its new tokens, None where none was asked for.
    """

    text: str
    finish_reason: str
    n_completion_tokens: int | None
    seed: int | None = None
    logprob: float | None = None
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine gave back for one request.

    Attributes:
        request_id: The id of the request.
        text: The completion, special tokens left out; empty when `error` is set.
        finish_reason: "stop", "length" or "error".
        n_prompt_tokens: Length of the prompt in tokens.
        n_completion_tokens: Number of new tokens.
        error: Why there is no answer, or None.
        is_whole: It does not go on with what the run's own prompt left open: a server that was sent
            turns shows its answer apart from its thought, or shows both.
        samples: All answers, this one first, where `generation.keeps_samples`; then
            `n_completion_tokens` counts those of all.
        margin: log P(first word) - log P(second word) of `AuxiliaryTask.either`; None where it was
            not asked for.
    """

    request_id: str
    text: str
    finish_reason: str
    n_prompt_tokens: int
    n_completion_tokens: int
    error: str | None = None
    is_whole: bool = False
    samples: tuple[Sample, ...] = ()
    margin: float | None = None

    @classmethod
    def failed(cls, request: GenerationRequest, reason: str) -> Completion:
        """What stands for the answer to a request that has none."""
        n_prompt_tokens = len(request.prompt_token_ids)
        return cls(request.request_id, "", "error", n_prompt_tokens, 0, error=reason)


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row of an input file that cannot be used.

    Attributes:
        path: The file.
        line: Line of the file on which the row begins, 1-based.
        reason: What is wrong with it.
        excerpt: Its first characters.
    """

    path: str
    line: int
    reason: str
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine reports of itself once it is ready; all of it goes into the manifest."""

    engine: str
    max_model_len: int
    details: Mapping[str, Any] = field(default_factory=dict)

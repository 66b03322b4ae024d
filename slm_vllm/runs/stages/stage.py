"""The base of stages that ask the evaluated model; replies are cached by content."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from slm_vllm.config.schema import Config, GenerationConfig, PromptConfig
from slm_vllm.errors import StorageError
from slm_vllm.json_text import encode_bytes
from slm_vllm.prompting.renderer import PromptInput, PromptRenderer
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.rundir.fingerprint import digest
from slm_vllm.runs.answer_cache import AnswerCache, batches
from slm_vllm.runs.auxiliary import FIXED_DAY, Asked
from slm_vllm.runs.engine_host import EngineHost
from slm_vllm.types import AuxiliaryTask, Completion, GenerationRequest, Passage

NO_PASSAGE = Passage("", "", "", "")

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class StagePrompt:
    """How a stage asks.

    Attributes:
        template: The text around a question, and around a passage where it shows one.
        task: How it is answered.
        tokenizer: A fast transformers tokenizer.
    """

    template: PromptTemplate
    task: AuxiliaryTask
    tokenizer: Any

    def renderer(self, max_model_len: int) -> PromptRenderer:
        """Renders prompts that leave room for the reply."""
        budget = max_model_len - self.task.max_new_tokens
        return PromptRenderer(self.template, self.tokenizer, budget)


def stage_template(config: PromptConfig, words: PromptConfig, tokenizer: Any) -> PromptTemplate:
    """The template of a stage.

    Args:
        config: The `prompt` section of the run, which says whose chat template is used.
        words: The stage's own words.
        tokenizer: A transformers tokenizer.
    """
    chosen = {"chat": config.chat, "chat_template": config.chat_template}
    return PromptTemplate(words.model_copy(update=chosen), tokenizer, FIXED_DAY)


class Stage(Generic[Item]):
    """What is common to the stages: an `Asker` whose replies can be looked up.

    Args:
        config: The run's configuration.
        prompt: How it asks.
        host: The engine of the run, started only if something is not known yet.
        revision: The commit or content hash of the weights.
        stack: Closes its cache.

    Attributes:
        identity: A hash of the prompt's words.
        host: The engine.
        cache: All replies to such prompts, of earlier commands too.
    """

    identity: str

    def __init__(
        self,
        config: Config,
        prompt: StagePrompt,
        host: EngineHost,
        revision: str,
        stack: ExitStack,
    ) -> None:
        self._prompt, self.host = prompt, host
        template = prompt.template
        words = template.render("", []), template.render("", [NO_PASSAGE])
        self.identity = digest([*words, prompt.task.max_new_tokens])
        scope: list[Any] = [revision, self.identity, config.engine.changes_answers()]
        if config.hardware.deterministic:
            scope.append("deterministic")
        if not config.engine.weights_are_known:
            host.start()
            scope += [config.engine.place, host.details.get("served_model")]
        asked = config.model_copy(
            update={
                "generation": GenerationConfig(max_new_tokens=prompt.task.max_new_tokens),
                "prompt": PromptConfig(name="stage"),
            }
        )
        path = Path(config.cache_dir) / "search_stages.sqlite"
        self.cache = stack.enter_context(
            AnswerCache(path, asked, digest(scope), host.settings.dtype)
        )
        self._failed: set[bytes] = set()

    @abstractmethod
    def shown(self, item: Item) -> PromptInput:
        """What its prompt shows."""

    @abstractmethod
    def reply(self, completion: Completion, asked: Asked) -> Completion:
        """See `Asker.reply`."""

    def content(self, item: Item) -> bytes:
        """A hash of all that its prompt shows."""
        shown = self.shown(item)
        texts = [shown.question, *((p.title, p.text) for p in shown.passages)]
        return hashlib.blake2b(encode_bytes(texts), digest_size=32).digest()

    def keyed(self, items: Iterable[Item]) -> dict[int, Item]:
        """Items by a 64-bit key of their content."""
        return {int.from_bytes(self.content(item)[:8], "big"): item for item in items}

    def requests(self, items: Iterable[tuple[int, Item]]) -> Iterator[Asked]:
        """See `Asker.requests`."""
        renderer = self._prompt.renderer(self.host.settings.max_model_len)
        for batch in batches(items):
            shown = [self.shown(item) for _, item in batch]
            prompts = renderer.stream(shown)
            for (key, _), one, prompt in zip(batch, shown, prompts, strict=True):
                request = GenerationRequest(
                    f"{key:016x}", prompt.token_ids, renderer.turns(prompt), self._prompt.task
                )
                error = prompt.error
                if one.passages and not prompt.n_passages_used:
                    error = error or "the question leaves no room for a passage"
                yield Asked(request, prompt.opened, error)

    def record(self, key: int, item: Item, reply: Completion) -> None:
        """Notes a failed request; replies are in the cache."""
        if reply.error is not None:
            self._failed.add(self.content(item))

    def replies(self, items: Sequence[Item]) -> list[str | None]:
        """What was replied; None where the request failed.

        Raises:
            StorageError: A reply was not kept.
        """
        contents = [self.content(item) for item in items]
        requests = (GenerationRequest(str(i), list(one)) for i, one in enumerate(contents))
        texts = {int(found.request_id): found.text for found in self.cache.find(requests)}
        if any(i not in texts and one not in self._failed for i, one in enumerate(contents)):
            raise StorageError(
                "what the model said before a search cannot be kept in search_stages.sqlite of "
                "cache_dir: is the disk full? The log says why. The same command resumes it"
            )
        return [texts.get(i) for i in range(len(contents))]
